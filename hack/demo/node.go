// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// node does for one container of an admitted pod what a kubelet does: it makes the
// volumes, keeps ConfigMaps fresh, and runs the container's command with the
// container's arguments and environment in a root directory of its own.
type node struct {
	kube kubernetes.Interface
	dir  string
	log  *os.File
	say  func(string, ...any)
}

// container runs the container of pod whose program is at binary, until ctx ends.
func (n *node) container(ctx context.Context, pod *corev1.Pod, c corev1.Container, binary string) (*process, error) {
	root := filepath.Join(n.dir, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // read by another user id in the container
		return nil, err
	}
	if len(c.Command) == 0 {
		return nil, fmt.Errorf("container %q has no command", c.Name)
	}
	if err := copyFile(binary, filepath.Join(root, c.Command[0]), 0o755); err != nil {
		return nil, err
	}
	for _, mount := range c.VolumeMounts {
		if err := n.volume(ctx, pod, mount, root); err != nil {
			return nil, fmt.Errorf("volume %q: %w", mount.Name, err)
		}
	}

	var env []string
	for _, e := range c.Env {
		if e.ValueFrom != nil {
			return nil, fmt.Errorf("environment variable %q: only literal values are supported here", e.Name)
		}
		env = append(env, e.Name+"="+e.Value)
	}
	p, err := start(ctx, "the sidecar", n.log.Name(), n.command(ctx, root, c, env))
	if forbidden(err) {
		n.say("this system lets no ordinary user change a root directory: the container's paths\n"+
			"    lead to %s instead", root)
		p, err = start(ctx, "the sidecar", n.log.Name(), n.rootless(ctx, root, c, env))
	}
	return p, err
}

// command is the container's, in the root directory root. The superuser gives it the
// user id of the container; another user may change the root directory inside a user
// namespace only, where it keeps the user's own id.
func (n *node) command(ctx context.Context, root string, c corev1.Container, env []string) *exec.Cmd {
	command := n.plain(ctx, c.Command[0], append(c.Command[1:], c.Args...), env)
	command.Path, command.Err = c.Command[0], nil // inside the root directory, so it is not looked up outside
	command.Dir = "/"
	command.SysProcAttr.Chroot = root
	if os.Geteuid() != 0 {
		command.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	} else if security := c.SecurityContext; security != nil && security.RunAsUser != nil {
		id := uint32(*security.RunAsUser) //nolint:gosec // the API server admits no other
		command.SysProcAttr.Credential = &syscall.Credential{Uid: id, Gid: id}
	}
	return command
}

// rootless is the same without a root directory of its own: arguments that name a
// file of the container name it below root.
func (n *node) rootless(ctx context.Context, root string, c corev1.Container, env []string) *exec.Cmd {
	var args []string
	for _, arg := range append(c.Command[1:], c.Args...) {
		for _, mount := range c.VolumeMounts {
			if name, path, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(path, mount.MountPath) {
				arg = name + "=" + filepath.Join(root, path)
				break
			}
		}
		args = append(args, arg)
	}
	return n.plain(ctx, filepath.Join(root, c.Command[0]), args, env)
}

func (n *node) plain(ctx context.Context, program string, args, env []string) *exec.Cmd {
	command := exec.CommandContext(ctx, program, args...) //nolint:gosec // the pod's own command
	command.Env = append([]string{}, env...)              // empty is not inherited
	command.Stdout, command.Stderr = n.log, n.log
	command.SysProcAttr = attributes()
	return command
}

// forbidden says that the kernel, or whoever set this machine up, does not let us make
// a user namespace or change the root directory: sysctl, AppArmor, seccomp.
func forbidden(err error) bool {
	for _, number := range []error{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.ENOSYS} {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

// volume puts the content of the volume behind mount below root.
func (n *node) volume(ctx context.Context, pod *corev1.Pod, mount corev1.VolumeMount, root string) error {
	dir := filepath.Join(root, mount.MountPath)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.Name != mount.Name {
			continue
		}
		switch {
		case volume.ConfigMap != nil:
			return n.configMap(ctx, pod.Namespace, volume.ConfigMap.Name, dir)
		case volume.Projected != nil:
			return n.projected(ctx, pod, volume.Projected, dir)
		}
	}
	return errors.New("neither a ConfigMap nor a projected volume of the pod")
}

// configMap writes the ConfigMap's keys and goes on writing them when they change.
func (n *node) configMap(ctx context.Context, namespace, name, dir string) error {
	var version string
	sync := func() error {
		object, err := n.kube.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil || object.ResourceVersion == version {
			return err
		}
		if err := writeAtomically(dir, object.Data); err != nil {
			return err
		}
		version = object.ResourceVersion
		return nil
	}
	if err := sync(); err != nil {
		return err
	}
	go func() {
		ticker := time.NewTicker(500 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := sync(); err != nil && ctx.Err() == nil {
					_, _ = fmt.Fprintf(n.log, "ConfigMap %s/%s: %v\n", namespace, name, err)
				}
			}
		}
	}()
	return nil
}

// projected writes service account tokens from the TokenRequest API, bound to the pod.
func (n *node) projected(ctx context.Context, pod *corev1.Pod, volume *corev1.ProjectedVolumeSource, dir string) error {
	files := map[string]string{}
	for _, source := range volume.Sources {
		if source.ServiceAccountToken == nil {
			return errors.New("a projected source that is not a service account token")
		}
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences:         []string{source.ServiceAccountToken.Audience},
			ExpirationSeconds: source.ServiceAccountToken.ExpirationSeconds,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
		}}
		answer, err := n.kube.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("request a token for service account %q: %w", pod.Spec.ServiceAccountName, err)
		}
		files[source.ServiceAccountToken.Path] = answer.Status.Token
	}
	return writeAtomically(dir, files)
}

// writeAtomically changes all files of a volume in one step, the way a kubelet does:
// a folder per version, and a link "..data" that is replaced.
func writeAtomically(dir string, files map[string]string) error {
	version := "..version-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil { //nolint:gosec // read by another user id in the container
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, version, name), []byte(content), 0o644); err != nil { //nolint:gosec // as above
			return err
		}
		link := filepath.Join(dir, name)
		if _, err := os.Lstat(link); errors.Is(err, os.ErrNotExist) {
			if err := os.Symlink(filepath.Join("..data", name), link); err != nil {
				return err
			}
		}
	}
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		return err
	}
	if strings.HasPrefix(old, "..version-") {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func copyFile(from, to string, mode os.FileMode) error {
	content, err := os.ReadFile(from) //nolint:gosec // a path of the demo's own
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, mode) //nolint:gosec // a path of the demo's own
}
