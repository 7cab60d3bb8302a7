// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	// gathering is how long changes are gathered, and how long a failed attempt rests.
	gathering = 100 * time.Millisecond
	rest      = time.Second
)

// Run keeps the rules of a node as the API server wants them, until ctx ends. It leaves
// the rules behind, so that nothing is open while it is started again.
func Run(ctx context.Context, node string, kube kubernetes.Interface, log io.Writer) error {
	factory := informers.NewSharedInformerFactory(kube, 0)
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	wanted := factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	tell := func(any) {
		select {
		case changed <- struct{}{}:
		default: // somebody said so already
		}
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), wanted.Informer()} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: tell, UpdateFunc: func(_, after any) { tell(after) }, DeleteFunc: tell,
		})
		if err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	state := func() (s State, err error) {
		if s.Pods, err = pods.Lister().List(labels.Everything()); err != nil {
			return s, err
		}
		if s.Namespaces, err = namespaces.Lister().List(labels.Everything()); err != nil {
			return s, err
		}
		s.Policies, err = wanted.Lister().List(labels.Everything())
		return s, err
	}
	tell(nil)
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		s, err := state()
		if err != nil {
			return err
		}
		pause := gathering
		if text := Ruleset(node, s); text != last {
			if err := apply(ctx, text); err != nil {
				fmt.Fprintf(log, "%s the rules are as before: %v\n", now(), err)
				pause = rest
				tell(nil)
			} else {
				fmt.Fprintf(log, "%s %d pods of this node are closed but for what NetworkPolicies admit%s\n", now(), strings.Count(text, "\tchain to-"), notEnforced(s))
				last = text
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// notEnforced names the policies that are enforced in part only.
func notEnforced(s State) string {
	var names []string
	for _, policy := range s.Policies {
		if slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			names = append(names, policy.Namespace+"/"+policy.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "; this network does not enforce the egress rules of " + strings.Join(names, ", ")
}

func apply(ctx context.Context, ruleset string) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(ruleset)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(output))
	}
	return nil
}
