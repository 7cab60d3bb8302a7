// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

const (
	// component is the value of api.ComponentLabel on every shard.
	component = "sessions"
	// policyLabel holds the policy's UID: what a watch is limited by, and the manager
	// deletes by when the policy goes.
	policyLabel = api.AnnotationPrefix + "policy-uid"
	// The owner's labels are for people.
	ownerNamespaceLabel = api.AnnotationPrefix + "owner-namespace"
	ownerNameLabel      = api.AnnotationPrefix + "owner-name"
	// writerAnnotation names the instance that wrote a shard last, so that instances
	// know with how many they share the permitted writes.
	writerAnnotation = api.AnnotationPrefix + "session-writer"
	// maxLabelLength in bytes; longer names are left out.
	maxLabelLength = 63
)

func (s *Store) selector() client.MatchingLabels {
	return client.MatchingLabels{api.ComponentLabel: component, policyLabel: string(s.config.Policy)}
}

func (s *Store) labels() map[string]string {
	labels := map[string]string(s.selector())
	for label, value := range map[string]string{ownerNamespaceLabel: s.config.OwnerNamespace, ownerNameLabel: s.config.OwnerName} {
		if value != "" && len(value) <= maxLabelLength {
			labels[label] = value
		}
	}
	return labels
}

// watch follows the shards until the store is closed. The reflector lists again
// whenever the watch may have missed something.
func (s *Store) watch() {
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &corev1.ConfigMapList{}
			return list, s.config.Client.List(ctx, list, s.listOptions(o)...)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return s.config.Client.Watch(ctx, &corev1.ConfigMapList{}, s.listOptions(o)...)
		},
	}
	logger := s.config.Log
	reflector := cache.NewReflectorWithOptions(source, &corev1.ConfigMap{}, watched{s}, cache.ReflectorOptions{
		Logger: &logger, Name: "sessions of " + string(s.config.Policy),
	})
	reflector.RunWithContext(s.ctx)
}

func (s *Store) listOptions(o metav1.ListOptions) []client.ListOption {
	return []client.ListOption{
		client.InNamespace(s.config.Namespace), s.selector(),
		&client.ListOptions{Limit: o.Limit, Continue: o.Continue, Raw: &o},
	}
}

// watched receives what the reflector sees.
type watched struct{ *Store }

var _ cache.ReflectorStore = watched{}

// Add takes a shard that is new, or changed.
func (s watched) Add(object any) error {
	cm, ok := object.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("watch session shards: got a %T", object)
	}
	shard, ours := s.shardOf(cm)
	if !ours {
		return nil
	}
	s.observe(shard, cm)
	if writer := cm.Annotations[writerAnnotation]; writer != "" && writer != s.instance {
		s.pace.saw(writer, time.Now())
		if shard == s.attemptsShard() {
			s.writers[shard].pace.saw(writer, time.Now())
		}
	}
	return nil
}

// Update is Add.
func (s watched) Update(object any) error { return s.Add(object) }

// Delete takes a shard that somebody deleted.
func (s watched) Delete(object any) error {
	if cm, ok := object.(*corev1.ConfigMap); ok {
		if shard, ours := s.shardOf(cm); ours {
			s.observe(shard, nil)
		}
	}
	return nil
}

// Replace takes all shards there are, at the start and after the watch was lost.
func (s watched) Replace(objects []any, _ string) error {
	found := make([]*corev1.ConfigMap, len(s.readers))
	for _, object := range objects {
		if cm, ok := object.(*corev1.ConfigMap); ok {
			if shard, ours := s.shardOf(cm); ours {
				found[shard] = cm
			}
		}
	}
	for shard, cm := range found {
		s.observe(shard, cm)
	}
	s.feed.isSynced()
	return nil
}

// Resync has no meaning here.
func (s watched) Resync() error { return nil }

func (s *Store) shardOf(cm *corev1.ConfigMap) (int, bool) {
	for shard := range s.readers {
		if cm.Name == s.shardName(shard) {
			return shard, true
		}
	}
	return 0, false
}

// observe takes a shard as the watch shows it; nil when it is gone.
func (s *Store) observe(shard int, cm *corev1.ConfigMap) {
	reader := s.readers[shard]
	before := reader.newest.Load()
	c := s.parse(shard, cm, before)
	s.reportUnreadable(shard, c)
	reader.learn(c, false)
	if shard != s.attemptsShard() {
		s.feed.update(shard, c)
	}
}

// reportUnreadable counts the records that do not open, and logs each once. Only the
// watch calls it, which sees every shard, one at a time.
func (s *Store) reportUnreadable(shard int, c *content) {
	before, now := s.unreadable[shard], map[string]string{}
	for key, e := range c.entries {
		if e.err == nil {
			continue
		}
		now[key] = string(e.sealed)
		if was, known := before[key]; !known || was != now[key] {
			message := "cannot read a session record, it is kept as it is"
			if shard == s.attemptsShard() {
				message = "cannot read the counted attempts, they start anew"
			}
			s.config.Log.Error(e.err, message, "shard", s.shardName(shard), "key", key)
		}
	}
	s.stats.unreadable.Add(int64(len(now) - len(before)))
	s.unreadable[shard] = now
}
