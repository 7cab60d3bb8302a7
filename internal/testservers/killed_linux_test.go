// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testservers

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const beKilled = "TOKENWARD_TEST_BE_KILLED"

// A test that is killed cleans nothing up, and its server would keep its port and memory.
func TestAServerEndsWithTheTestThatIsKilled(t *testing.T) {
	if os.Getenv(beKilled) != "" {
		fmt.Println("address", Redis(t, RedisOptions{}).Addr) //nolint:forbidigo // for the parent
		select {}
	}
	binary(t, "redis-server", "redis-server")
	test := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	test.Env = append(os.Environ(), beKilled+"=1", "TMPDIR="+folder(t)) // which it cannot remove
	output, err := test.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := test.Start(); err != nil {
		t.Fatal(err)
	}
	var address string
	for lines := bufio.NewScanner(output); address == "" && lines.Scan(); {
		_, address, _ = strings.Cut(lines.Text(), "address ")
	}
	_ = test.Process.Kill()
	_ = test.Wait()
	if address == "" {
		t.Fatal("the test started no server")
	}
	every := time.NewTicker(probeEvery)
	defer every.Stop()
	for deadline := time.After(stopPatience); ; {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return
		}
		_ = conn.Close()
		select {
		case <-every.C:
		case <-deadline:
			t.Fatalf("the server at %s has outlived its test by %s", address, stopPatience)
		}
	}
}
