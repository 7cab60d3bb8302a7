// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command tokenward-sidecar is the reverse proxy that the webhook puts in front of an
// application container. It reads the settings that the manager publishes, checks
// each request, asks the issuer for new tokens, and knows nothing of Kubernetes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tokenward/tokenward/internal/probe"
)

// options are the flags.
type options struct {
	// hook is done in place of serving, if it is set.
	hook                hook
	listen, adminListen string
	adminPort           string // of adminListen, for the hook
	upstream            string
	settingsDir         string
	identityFile        string
	drainTimeout        time.Duration
	// probes of the application that are run in the kubelet's place, by name.
	probes map[string]probe.Probe
}

func main() {
	limitMemory("/sys/fs/cgroup")
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if o.hook != nil {
			err = o.hook(ctx, o.adminPort)
		} else {
			err = run(ctx, o, log)
		}
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Error("the sidecar ends", "error", err)
		os.Exit(1) //nolint:gocritic // stop only restores signals of a process that ends
	}
}

// parseFlags names the flag, the value and the remedy of a mistake.
func parseFlags(args []string, usage io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("tokenward-sidecar", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&o.listen, "listen", ":18080", "`address` for the application's clients")
	flags.StringVar(&o.adminListen, "admin-listen", ":18081", "`address` for probes and metrics")
	flags.StringVar(&o.upstream, "upstream", "", "`address` of the application, for example 127.0.0.1:8080")
	flags.StringVar(&o.settingsDir, "settings-dir", "/etc/tokenward", "`directory` with settings.json, a mounted ConfigMap")
	flags.StringVar(&o.identityFile, "identity-token-file", "/var/run/secrets/kubernetes.io/serviceaccount/token", "`file` with the service account token for the issuer")
	flags.Func("hook", "`name` of what to do in place of serving: postStart waits until the sidecar at --admin-listen serves, preStop tells it that the pod ends", func(value string) error {
		if o.hook = hooks()[value]; o.hook == nil {
			return errors.New("write postStart or preStop")
		}
		return nil
	})
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 25*time.Second, "how long requests in flight may go on after SIGTERM")
	flags.Func("probes", "`list` of the application's probes, as the webhook writes it", func(value string) (err error) {
		o.probes, err = probe.Parse(value)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("argument %q is not expected: use flags only", flags.Arg(0))
	}
	if o.hook != nil {
		var err error
		if _, o.adminPort, err = net.SplitHostPort(o.adminListen); err != nil {
			return o, fmt.Errorf("--admin-listen is %q: write the port, for example :18081", o.adminListen)
		}
		return o, nil
	}
	host, port, err := net.SplitHostPort(o.upstream)
	if err != nil || host == "" || port == "" {
		return o, fmt.Errorf("--upstream is %q: write the host and port of the application, for example 127.0.0.1:8080", o.upstream)
	}
	if o.drainTimeout < 0 {
		return o, fmt.Errorf("--drain-timeout is %s: write a duration of at least 0s", o.drainTimeout)
	}
	return o, nil
}
