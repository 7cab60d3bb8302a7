// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command tokenward is the operator: "tokenward manager" reconciles the kinds and
// injects the sidecar, "tokenward issuer" is the token service. The sidecar is a
// binary of its own, see sidecar/.
package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/tokenward/tokenward/controllers"
	"github.com/tokenward/tokenward/controllers/certificates"
	"github.com/tokenward/tokenward/controllers/injection"
	"github.com/tokenward/tokenward/controllers/sessionkeys"
	"github.com/tokenward/tokenward/controllers/signingkey"
	"github.com/tokenward/tokenward/controllers/tokenpolicy"
	"github.com/tokenward/tokenward/internal/servingcert"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/issuer"
)

// version is set by the linker, see Makefile.
var version = "dev"

func main() {
	if err := root().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "tokenward:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	command := &cobra.Command{
		Use:           "tokenward",
		Short:         "Token authentication for any workload on Kubernetes, from one annotation",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	command.AddCommand(managerCommand(), issuerCommand(), hashPasswordCommand())
	return command
}

// common are the flags that manager and issuer share.
type common struct {
	namespace string
	metrics   string
	health    string
	logLevel  string
}

func (c *common) addTo(command *cobra.Command, metrics string) {
	flags := command.Flags()
	flags.StringVar(&c.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "the operator's own namespace, where keys, certificates and sessions are kept (default: the environment variable POD_NAMESPACE)")
	flags.StringVar(&c.metrics, "metrics-bind-address", metrics, "where metrics are served, over https and for who may read /metrics; 0 turns them off")
	flags.StringVar(&c.health, "health-probe-bind-address", ":8081", "where /healthz and /readyz are served")
	flags.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
}

// connect checks the flags, sets logging up and finds the API server.
func (c *common) connect() (*rest.Config, error) {
	if c.namespace == "" {
		return nil, errors.New("--namespace is empty: set it, or the environment variable POD_NAMESPACE, to the operator's namespace")
	}
	level, err := parseLevel(c.logLevel)
	if err != nil {
		return nil, err
	}
	logger := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(logger)
	ctrl.SetLogger(logr.FromSlogHandler(logger.Handler()))
	klog.SetSlogLogger(logger)

	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	return config, nil
}

// parseLevel knows these words only. slog would take "debug-4" as well, and at levels
// like that client-go logs the bodies of requests: Secrets and tokens.
func parseLevel(name string) (slog.Level, error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("--log-level %q: use debug, info, warn or error", name)
}

// manager makes the manager of controller-runtime that both commands build on.
func (c *common) manager(config *rest.Config, options ctrl.Options) (ctrl.Manager, error) {
	options.HealthProbeBindAddress = c.health
	options.Metrics = metricsserver.Options{
		BindAddress:    c.metrics,
		SecureServing:  true,
		FilterProvider: filters.WithAuthenticationAndAuthorization,
	}
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return nil, err
	}
	return mgr, mgr.AddHealthzCheck("ping", healthz.Ping)
}

// maxTries is what --port-tries-per-minute may be: the requests for them go to the API
// server as well.
const maxTries = 600

func managerCommand() *cobra.Command {
	var (
		common       common
		sidecarImage string
		issuerURL    string
		webhookPort  int
		leaderElect  bool
		tries        int
	)
	command := &cobra.Command{
		Use:   "manager",
		Short: "Reconcile SigningKey and TokenPolicy, and inject the sidecar",
		Args:  cobra.NoArgs,
	}
	common.addTo(command, ":8443")
	flags := command.Flags()
	flags.StringVar(&sidecarImage, "sidecar-image", "", "image of the injected sidecar (required)")
	flags.StringVar(&issuerURL, "issuer-url", "", "where sidecars find the issuer (default: https://tokenward-issuer.<namespace>.svc)")
	flags.IntVar(&webhookPort, "webhook-port", 9443, "port of the admission webhook")
	flags.BoolVar(&leaderElect, "leader-elect", false, "have one of several replicas reconcile; all of them serve the webhook")

	flags.IntVar(&tries, "port-tries-per-minute", 60, "how many pods under Port capture, over all policies, are tried at most whether their application's port can be reached past the sidecar, by a connection without a byte; 0 turns it off")

	command.RunE = func(command *cobra.Command, _ []string) error {
		if tries < 0 || tries > maxTries {
			return fmt.Errorf("--port-tries-per-minute is %d: write 0 for none, to %d", tries, maxTries)
		}
		if issuerURL == "" {
			issuerURL = "https://tokenward-issuer." + common.namespace + ".svc"
		}
		config, err := common.connect()
		if err != nil {
			return err
		}
		certificate, err := servingcert.New(config, common.namespace, servingcert.WebhookSecret)
		if err != nil {
			return err
		}
		mgr, err := common.manager(config, ctrl.Options{
			Scheme:                        controllers.Scheme(),
			Cache:                         controllers.CacheOptions(common.namespace),
			LeaderElection:                leaderElect,
			LeaderElectionID:              "tokenward-manager",
			LeaderElectionNamespace:       common.namespace,
			LeaderElectionReleaseOnCancel: true, // the process ends when the manager does
			WebhookServer: partingServer{webhook.NewServer(webhook.Options{
				Port:    webhookPort,
				TLSOpts: []func(*tls.Config){certificate.Configure},
			}), command.Context().Done()},
		})
		if err != nil {
			return err
		}
		inject := injection.Options{Namespace: common.namespace, SidecarImage: sidecarImage}
		for _, setUp := range []func() error{
			func() error { return injection.SetupWithManager(mgr, inject) },
			func() error {
				return certificates.SetupWithManager(mgr, certificates.Options{Namespace: common.namespace, IssuerURL: issuerURL})
			},
			func() error {
				return sessionkeys.SetupWithManager(mgr, sessionkeys.Options{Namespace: common.namespace})
			},
			func() error {
				return signingkey.SetupWithManager(mgr, signingkey.Options{Namespace: common.namespace})
			},
			func() error {
				return tokenpolicy.SetupWithManager(mgr, tokenpolicy.Options{
					Namespace: common.namespace, IssuerURL: issuerURL, Template: injection.Template(inject), TriesPerMinute: tries,
				})
			},
			func() error { return mgr.Add(certificate) },
			func() error { return mgr.AddReadyzCheck("certificate", certificate.Check) },
			func() error { return mgr.AddReadyzCheck("webhook", mgr.GetWebhookServer().StartedChecker()) },
		} {
			if err := setUp(); err != nil {
				return err
			}
		}
		return mgr.Start(endLater(command.Context(), parting))
	}
	return command
}

func issuerCommand() *cobra.Command {
	var (
		common   common
		listen   string
		outbound []string
	)
	command := &cobra.Command{
		Use:   "issuer",
		Short: "Serve login, refresh, logout and the key set to the sidecars",
		Args:  cobra.NoArgs,
	}
	common.addTo(command, ":8444")
	command.Flags().StringVar(&listen, "listen", ":8443", "where the sidecars call, over https")
	command.Flags().StringSliceVar(&outbound, "allow-outbound-cidr", nil, "range of addresses at which policies may name databases and services, although it is this pod's own machine, its node, or reserved; may be repeated")

	command.RunE = func(command *cobra.Command, _ []string) error {
		allowed, err := parseRanges(outbound)
		if err != nil {
			return err
		}
		config, err := common.connect()
		if err != nil {
			return err
		}
		mgr, err := common.manager(config, ctrl.Options{
			Scheme: issuer.Scheme(),
			Cache:  issuer.CacheOptions(common.namespace),
		})
		if err != nil {
			return err
		}
		if err := issuer.SetupWithManager(mgr, issuer.Options{Namespace: common.namespace, Listen: listen, AllowOutbound: allowed}); err != nil {
			return err
		}
		return mgr.Start(command.Context())
	}
	return command
}

// parseRanges takes no range with bits outside its mask: who writes 10.1.2.3/8 may mean
// one host.
func parseRanges(texts []string) ([]netip.Prefix, error) {
	var ranges []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return nil, fmt.Errorf("--allow-outbound-cidr %q: write a range such as 10.0.0.0/8, or 192.0.2.7/32 for one address", text)
		}
		ranges = append(ranges, p)
	}
	return ranges, nil
}

func hashPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Read a password and print its argon2id hash, for a Secret of users",
		Long: "Read a password, one line of standard input, and print its argon2id hash for a Secret of users.\n" +
			"On a terminal it is asked for and not shown.",
		Example: `  echo 'correct horse battery staple' | tokenward hash-password`,
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			secret, err := readPassword(command)
			if err != nil {
				return fmt.Errorf("read the password: %w", err)
			}
			if secret == "" {
				return errors.New("the password is empty: give one line on standard input")
			}
			_, err = fmt.Fprintln(command.OutOrStdout(), password.Hash(secret))
			return err
		},
	}
}

// readPassword takes the first line, without its end.
func readPassword(command *cobra.Command) (string, error) {
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		_, _ = fmt.Fprint(command.ErrOrStderr(), "Password: ")
		line, err := term.ReadPassword(in)
		_, _ = fmt.Fprintln(command.ErrOrStderr())
		return string(line), err
	}
	line, err := bufio.NewReader(command.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
