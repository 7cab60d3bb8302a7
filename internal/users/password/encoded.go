// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package password

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Bounds of what is accepted. A hash is written by the owner of the user source
// and computed by the issuer, which serves others too: an entry must not be able to
// take its memory or its time away.
const (
	// MaxMemoryKiB is the most memory that one argon2id hash may take, in KiB: 128 MiB.
	MaxMemoryKiB = 128 << 10
	// MaxMemoryPasses bounds memory in KiB times passes, which is what the time of an
	// argon2id hash is made of: about half a second of one core.
	MaxMemoryPasses = 512 << 10
	// MaxThreads bounds the lanes of an argon2id hash.
	MaxThreads = 8
	// MaxBcryptCost bounds the cost of a bcrypt hash: about a second of one core.
	MaxBcryptCost = 14

	maxEncodedLength = 512
	minSaltLength    = 8
	minKeyLength     = 16
	maxKeyLength     = 64
)

// Parameters of new hashes: what the OWASP Password Storage Cheat Sheet recommends
// for argon2id.
const (
	newMemoryKiB  = 19 << 10
	newPasses     = 2
	newThreads    = 1
	newSaltLength = 16
	newKeyLength  = 32
)

// Encoded is a hash that was found to be well formed and within the bounds. The
// zero value is not one. It never prints the hash.
type Encoded struct {
	cost   Cost
	bcrypt []byte // the whole string, for bcrypt
	salt   []byte
	key    []byte
}

// Cost is what it takes to compute a hash. Two hashes of one cost take the same time.
// It is comparable.
type Cost struct {
	// BcryptCost is zero for argon2id.
	BcryptCost int
	// MemoryKiB, Passes and Threads are zero for bcrypt.
	MemoryKiB, Passes uint32
	Threads           uint8
	saltLength        int
	keyLength         int
}

// DefaultCost is the cost of the hashes that [Hash] makes.
func DefaultCost() Cost {
	return Cost{MemoryKiB: newMemoryKiB, Passes: newPasses, Threads: newThreads, saltLength: newSaltLength, keyLength: newKeyLength}
}

// Less orders costs, in no meaningful way, to make a choice among them stable.
func (c Cost) Less(other Cost) bool {
	a := [...]int64{int64(c.BcryptCost), int64(c.MemoryKiB), int64(c.Passes), int64(c.Threads), int64(c.saltLength), int64(c.keyLength)}
	b := [...]int64{int64(other.BcryptCost), int64(other.MemoryKiB), int64(other.Passes), int64(other.Threads), int64(other.saltLength), int64(other.keyLength)}
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// Cost of computing the hash.
func (e Encoded) Cost() Cost { return e.cost }

// String does not print the hash.
func (e Encoded) String() string { return "[hash]" }

// GoString does not print the hash.
func (e Encoded) GoString() string { return "[hash]" }

// Hash makes an argon2id hash of a password, in the PHC string format.
func Hash(password string) string {
	salt := make([]byte, newSaltLength)
	_, _ = rand.Read(salt) // never fails, see crypto/rand
	key := argon2.IDKey([]byte(password), salt, newPasses, newMemoryKiB, newThreads, newKeyLength)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, newMemoryKiB, newPasses, newThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// Dummy is a hash of the given cost that no password is known for. Who verifies it
// spends the time that a real one would take.
func Dummy(cost Cost) Encoded {
	if cost.BcryptCost > 0 {
		// 22 characters of salt and 31 of hash in bcrypt's own base64: made up, not computed.
		random := strings.ToLower(rand.Text() + rand.Text() + rand.Text())
		encoded := fmt.Sprintf("$2b$%02d$%s", cost.BcryptCost, random[:21]+"u"+random[22:53])
		return Encoded{cost: cost, bcrypt: []byte(encoded)}
	}
	e := Encoded{cost: cost, salt: make([]byte, cost.saltLength), key: make([]byte, cost.keyLength)}
	_, _ = rand.Read(e.salt)
	_, _ = rand.Read(e.key)
	return e
}

// LooksLikeHash says whether a value is meant to be a hash of argon2 or bcrypt,
// well formed or not. Such a value is never compared as it stands.
func LooksLikeHash(value string) bool {
	if strings.HasPrefix(value, "$argon2") {
		return true
	}
	return len(value) >= 4 && value[:2] == "$2" && (value[2] == '$' || value[3] == '$')
}

// Parse reads a hash. Its errors say what is wrong and never hold any of the value.
func Parse(value string) (Encoded, error) {
	switch {
	case len(value) > maxEncodedLength:
		return Encoded{}, fmt.Errorf("the hash has more than %d characters", maxEncodedLength)
	case strings.HasPrefix(value, "$argon2id$"):
		return parseArgon2id(value)
	case strings.HasPrefix(value, "$2a$"), strings.HasPrefix(value, "$2b$"), strings.HasPrefix(value, "$2y$"):
		return parseBcrypt(value)
	}
	return Encoded{}, errors.New("not an argon2id hash ($argon2id$…) and not a bcrypt hash ($2a$, $2b$ or $2y$)")
}

func parseBcrypt(value string) (Encoded, error) {
	if len(value) != 60 {
		return Encoded{}, errors.New("a bcrypt hash has 60 characters")
	}
	cost, err := strconv.Atoi(value[4:6])
	if err != nil || value[6] != '$' || cost < bcrypt.MinCost {
		return Encoded{}, fmt.Errorf("the cost of the bcrypt hash is not a number from %d", bcrypt.MinCost)
	}
	if cost > MaxBcryptCost {
		return Encoded{}, fmt.Errorf("the cost of the bcrypt hash is %d, more than %d", cost, MaxBcryptCost)
	}
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if strings.Trim(value[7:], alphabet) != "" {
		return Encoded{}, errors.New("the bcrypt hash has characters outside its alphabet")
	}
	return Encoded{cost: Cost{BcryptCost: cost}, bcrypt: []byte(value)}, nil
}

func parseArgon2id(value string) (Encoded, error) {
	parts := strings.Split(value, "$")
	if len(parts) != 6 {
		return Encoded{}, errors.New("an argon2id hash has the form $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	if parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return Encoded{}, fmt.Errorf("the version of the argon2id hash is not v=%d", argon2.Version)
	}
	cost, err := parseArgon2idCost(parts[3])
	if err != nil {
		return Encoded{}, err
	}
	salt, err := base64.RawStdEncoding.Strict().DecodeString(parts[4])
	if err != nil || len(salt) < minSaltLength {
		return Encoded{}, fmt.Errorf("the salt of the argon2id hash is not base64 without padding of at least %d bytes", minSaltLength)
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err != nil || len(key) < minKeyLength || len(key) > maxKeyLength {
		return Encoded{}, fmt.Errorf("the argon2id hash is not base64 without padding of %d to %d bytes", minKeyLength, maxKeyLength)
	}
	cost.saltLength, cost.keyLength = len(salt), len(key)
	return Encoded{cost: cost, salt: salt, key: key}, nil
}

func parseArgon2idCost(parameters string) (Cost, error) {
	fields := strings.Split(parameters, ",")
	if len(fields) != 3 {
		return Cost{}, errors.New("the parameters of the argon2id hash are not m=…,t=…,p=…")
	}
	var numbers [3]uint64
	for i, name := range []string{"m=", "t=", "p="} {
		text, ok := strings.CutPrefix(fields[i], name)
		number, err := strconv.ParseUint(text, 10, 32)
		if !ok || err != nil {
			return Cost{}, errors.New("the parameters of the argon2id hash are not m=…,t=…,p=…")
		}
		numbers[i] = number
	}
	memory, passes, threads := numbers[0], numbers[1], numbers[2]
	switch {
	case threads < 1 || threads > MaxThreads:
		return Cost{}, fmt.Errorf("p of the argon2id hash is %d, not from 1 to %d", threads, MaxThreads)
	case memory < 8*threads || memory > MaxMemoryKiB:
		return Cost{}, fmt.Errorf("m of the argon2id hash is %d KiB, not from %d to %d", memory, 8*threads, MaxMemoryKiB)
	case passes < 1 || memory*passes > MaxMemoryPasses:
		return Cost{}, fmt.Errorf("t of the argon2id hash is %d: it must be at least 1, and m times t at most %d", passes, MaxMemoryPasses)
	}
	return Cost{MemoryKiB: uint32(memory), Passes: uint32(passes), Threads: uint8(threads)}, nil //nolint:gosec // bounded above
}

// matches computes the hash. It takes the time that the cost says.
func (e Encoded) matches(password string) bool {
	if e.bcrypt != nil {
		return bcrypt.CompareHashAndPassword(e.bcrypt, []byte(password)) == nil
	}
	key := argon2.IDKey([]byte(password), e.salt, e.cost.Passes, e.cost.MemoryKiB, e.cost.Threads, uint32(len(e.key))) //nolint:gosec // at most maxKeyLength
	return subtle.ConstantTimeCompare(key, e.key) == 1
}
