#!/usr/bin/env bash
# Copyright The Tokenward Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Builds etcd and kube-apiserver from the modules pinned in components/go.mod into
# the folder given, and does nothing when they are there already. The first build
# takes some minutes, so it says how far it is.
set -euo pipefail

out=$(mkdir -p "${1:?usage: build.sh FOLDER}" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/components"

say() { printf '%s\n' "$*" >&2; }

# What is built depends on these alone; a changed time stamp means nothing.
wanted=$(cat go.mod go.sum "$here/build.sh" | sha256sum | cut -d' ' -f1)
if [[ -x $out/etcd && -x $out/kube-apiserver && $(cat "$out/.built-from" 2>/dev/null) == "$wanted" ]]; then
	exit 0
fi

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
package=k8s.io/component-base/version
ldflags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"

# build NAME PACKAGE LDFLAGS builds one component, with a line every ten seconds.
build() {
	local name=$1 started=$SECONDS next=10 status=0 compiler
	say "cluster: building $name (needs some minutes the first time)"
	CGO_ENABLED=0 go build -trimpath -ldflags "$3" -o "$out/$name.new" "$2" &
	compiler=$!
	trap 'kill "$compiler" 2>/dev/null || true' EXIT
	while sleep 1 && kill -0 "$compiler" 2>/dev/null; do
		if ((SECONDS - started >= next)); then
			say "cluster: building $name … $((SECONDS - started)) s"
			next=$((next + 10))
		fi
	done
	wait "$compiler" || status=$?
	trap - EXIT
	if ((status != 0)); then
		say "cluster: building $name failed after $((SECONDS - started)) s"
		exit "$status"
	fi
	mv "$out/$name.new" "$out/$name"
	say "cluster: $name is ready after $((SECONDS - started)) s"
}

build etcd go.etcd.io/etcd/server/v3 "-s -w"
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$ldflags"
printf '%s\n' "$wanted" >"$out/.built-from"
