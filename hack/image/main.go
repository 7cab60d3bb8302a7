// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command image builds the project's images without a container tool and without a
// registry: it compiles the static programs, as the Dockerfile does, and writes them
// as an OCI image layout.
//
//	go run ./hack/image -out bin/images -name ghcr.io/tokenward/tokenward:latest -platforms linux/amd64,linux/arm64
//
// Beside the product it makes what the cluster of hack/cluster and the tests of
// test/e2e run in pods: pause, CoreDNS and the tests' workload; and that of the demo.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tokenward/tokenward/hack/image/oci"
)

type options struct {
	root, out, name, version string
	platforms                []string
	product                  bool
}

func main() {
	o := options{}
	flag.StringVar(&o.root, "root", ".", "top `folder` of the repository")
	flag.StringVar(&o.out, "out", "bin/images", "`folder` for the OCI image layout")
	flag.StringVar(&o.name, "name", "ghcr.io/tokenward/tokenward:latest", "`name` of the product's image")
	flag.StringVar(&o.version, "version", "dev", "version that the product says it is")
	flag.BoolVar(&o.product, "product", false, "build the product's image alone")
	platforms := flag.String("platforms", "linux/"+runtime.GOARCH, "`platforms` of all images, separated by commas")
	flag.Parse()
	o.platforms = strings.Split(*platforms, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := build(ctx, o)
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

// image is one image: programs by their path in it, and the packages they are made of.
type image struct {
	name       string
	programs   map[string]string
	entrypoint string
	user       string
	ldflags    string
	labels     map[string]string
}

func images(o options) []image {
	const nonroot = "65532:65532"
	return []image{
		{ // the product, first: what the Dockerfile says
			name:       o.name,
			programs:   map[string]string{"/tokenward": ".", "/tokenward-sidecar": "./sidecar", "/tokenward-redirect": "./redirect"},
			entrypoint: "/tokenward",
			user:       nonroot,
			ldflags:    "-X main.version=" + o.version,
			labels: map[string]string{
				"org.opencontainers.image.title":    "Tokenward",
				"org.opencontainers.image.licenses": "Apache-2.0",
				"org.opencontainers.image.source":   "https://github.com/tokenward/tokenward",
			},
		},
		{name: "cluster.local/pause:1", programs: map[string]string{"/pause": "./hack/image/pause"}, entrypoint: "/pause", user: nonroot},
		{name: "cluster.local/coredns:1", programs: map[string]string{"/coredns": "./hack/cluster/coredns"}, entrypoint: "/coredns", user: nonroot},
		{name: "cluster.local/workload:1", programs: map[string]string{"/workload": "./test/e2e/workload"}, entrypoint: "/workload", user: nonroot},
		{name: "cluster.local/demo:1", programs: map[string]string{"/pod": "./hack/demo/pod"}, entrypoint: "/pod", user: nonroot},
	}
}

func build(ctx context.Context, o options) error {
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	// Kept, because what is as it was is not linked again.
	work, err := filepath.Abs(filepath.Join(filepath.Dir(o.out), "programs"))
	if err != nil {
		return err
	}
	layout := oci.Layout(o.out)
	all := images(o)
	if o.product { // of another commit, perhaps: it must not replace this one's programs
		all, work = all[:1], filepath.Join(work, o.version)
	}
	for _, wanted := range all {
		made := oci.Image{Name: wanted.name, Entrypoint: []string{wanted.entrypoint}, User: wanted.user, Labels: wanted.labels}
		for _, p := range o.platforms {
			system, architecture, ok := strings.Cut(p, "/")
			if !ok {
				return fmt.Errorf("platform %q is not of the form linux/amd64", p)
			}
			files := map[string]string{}
			for _, path := range slices.Sorted(maps.Keys(wanted.programs)) {
				files[path] = filepath.Join(work, system+"-"+architecture, path)
				if err := compile(ctx, filepath.Join(root, wanted.programs[path]), files[path], system, architecture, wanted.ldflags); err != nil {
					return err
				}
			}
			made.Platforms = append(made.Platforms, oci.Platform{OS: system, Architecture: architecture, Files: files})
		}
		before, err := layout.Digest(wanted.name)
		if err != nil {
			return err
		}
		if err := layout.Write(made); err != nil {
			return err
		}
		digest, err := layout.Digest(wanted.name)
		if err != nil {
			return err
		}
		if digest != before {
			fmt.Fprintf(os.Stderr, "image: %s for %s in %s\n", wanted.name, strings.Join(o.platforms, ", "), o.out)
		}
	}
	return layout.Prune()
}

// compile builds the program in folder, which may be of another module.
func compile(ctx context.Context, folder, to, system, architecture, ldflags string) error {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w "+ldflags, "-o", to, ".")
	command.Dir = folder
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+architecture)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	began, ticker := time.Now(), time.NewTicker(10*time.Second)
	defer ticker.Stop()
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("compile %s for %s/%s: %w", folder, system, architecture, err)
			}
			return nil
		case <-ticker.C: // the first time, CoreDNS takes minutes
			fmt.Fprintf(os.Stderr, "image: compiling %s for %s/%s … %.0f s\n", folder, system, architecture, time.Since(began).Seconds())
		}
	}
}
