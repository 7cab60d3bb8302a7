#!/usr/bin/env bash
# Copyright The Tokenward Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Builds programs of Kubernetes, and etcd, from the modules pinned in components/go.mod
# into the folder given, and does nothing for those that are there already. The first
# build of all of them takes some minutes, so it says how far it is.
#
#   build.sh FOLDER [NAME...]     NAME: etcd, kube-apiserver (both without a NAME),
#                                 kube-controller-manager, kube-scheduler, kubelet,
#                                 kube-proxy, kubectl
set -euo pipefail

out=$(mkdir -p "${1:?usage: build.sh FOLDER [NAME...]}" && cd "$1" && pwd)
shift
(($#)) || set -- etcd kube-apiserver
cd "$(dirname "${BASH_SOURCE[0]}")/components"

say() { printf '%s\n' "$*" >&2; }

version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
IFS=. read -r major minor _ <<<"${version#v}"
package=k8s.io/component-base/version
ldflags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"

# What is built depends on these alone; a changed time stamp means nothing.
wanted=$(printf '%s\n' "$ldflags" | cat go.mod go.sum - | sha256sum | cut -d' ' -f1)

names=() packages=()
for name; do
	if [[ -x $out/$name && $(cat "$out/.$name.built-from" 2>/dev/null) == "$wanted" ]]; then
		continue
	fi
	names+=("$name")
	case $name in
	etcd) packages+=(go.etcd.io/etcd/server/v3) ;;
	*) packages+=("k8s.io/kubernetes/cmd/$name") ;;
	esac
done
((${#names[@]})) || exit 0

# All in one command: packages are compiled while programs are linked.
started=$SECONDS next=10 status=0
new=$(mktemp -d "$out/.new.XXXXXX")
say "cluster: building ${names[*]} (needs some minutes the first time)"
CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$new/" "${packages[@]}" &
compiler=$!
trap 'kill "$compiler" 2>/dev/null || true; rm -rf "$new"' EXIT
while sleep 1 && kill -0 "$compiler" 2>/dev/null; do
	if ((SECONDS - started >= next)); then
		say "cluster: building … $((SECONDS - started)) s"
		next=$((next + 10))
	fi
done
wait "$compiler" || status=$?
if ((status != 0)); then
	say "cluster: building failed after $((SECONDS - started)) s"
	exit "$status"
fi
for name in "${names[@]}"; do
	built=$new/$name
	[[ $name != etcd ]] || built=$new/server # the last part of its package's path
	mv "$built" "$out/$name"
	printf '%s\n' "$wanted" >"$out/.$name.built-from"
done
say "cluster: ${names[*]}: ready after $((SECONDS - started)) s"
