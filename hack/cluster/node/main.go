// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// options say which cluster is meant, and what it is made of.
type options struct {
	// dir holds all that the cluster writes.
	dir string
	// binaries is the folder that build.sh filled.
	binaries string
	// images is an OCI image layout with every image that pods may want.
	images string
	nodes  int
	number int // of the node to restart, or to be
}

const usage = "usage: cluster check|up|status|restart|down [flags]; -h shows the flags"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	o := options{}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "/var/lib/tokenward-cluster", "`folder` for everything that the cluster writes")
	flags.StringVar(&o.binaries, "bin", "bin/k8s", "`folder` with the binaries of Kubernetes")
	flags.StringVar(&o.images, "images", "bin/images", "`folder` with images, an OCI image layout")
	flags.IntVar(&o.nodes, "nodes", 2, "how `many` nodes")
	flags.IntVar(&o.number, "number", 1, "which `node` to restart")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.nodes < 1 || o.nodes > 9 || o.number < 1 || o.number > o.nodes {
		return fmt.Errorf("unknown arguments, or not 1 to 9 nodes: %s: %s", strings.Join(args, " "), usage)
	}
	for _, path := range []*string{&o.dir, &o.binaries, &o.images} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		// /tmp/x may be a link to where it still is when /tmp is covered by the node's own.
		if resolved, err := filepath.EvalSymlinks(absolute); err == nil {
			absolute = resolved
		}
		*path = absolute
	}
	if os.Geteuid() != 0 {
		return errors.New("a node needs root: it makes namespaces, mounts and cgroups")
	}
	switch args[0] {
	case "check":
		return check(ctx, os.Stdout)
	case "up":
		return up(ctx, o, os.Stdout)
	case "status":
		return status(ctx, o, os.Stdout)
	case "restart":
		return restart(ctx, o, os.Stdout)
	case "down":
		return down(ctx, o, os.Stdout)
	case "init":
		return runInit(ctx, o, o.number)
	case enforcer:
		return enforcePolicies(ctx, node{Number: o.number})
	default:
		return errors.New(usage)
	}
}
