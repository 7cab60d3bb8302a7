// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	_ "embed"

	goredis "github.com/redis/go-redis/v9"
)

// The sources of the scripts.
var (
	//go:embed lua/create.lua
	createSource string
	//go:embed lua/swap.lua
	swapSource string
	//go:embed lua/revoke.lua
	revokeSource string
	//go:embed lua/read.lua
	readSource string
	//go:embed lua/check.lua
	checkSource string
	//go:embed lua/trim.lua
	trimSource string
	//go:embed lua/take.lua
	takeSource string
	//go:embed lua/giveback.lua
	giveBackSource string
)

type scripts struct{ create, swap, revoke, read, check, trim, take, giveBack *goredis.Script }

func newScripts() scripts {
	return scripts{
		create: goredis.NewScript(createSource), swap: goredis.NewScript(swapSource), revoke: goredis.NewScript(revokeSource),
		read: goredis.NewScript(readSource), check: goredis.NewScript(checkSource), trim: goredis.NewScript(trimSource),
		take: goredis.NewScript(takeSource), giveBack: goredis.NewScript(giveBackSource),
	}
}
