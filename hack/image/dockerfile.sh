#!/usr/bin/env bash
# Copyright The Tokenward Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Builds the image that the Dockerfile describes, with buildah, for machines that can
# reach no registry: the image to build in has this machine's shell and, mounted, its
# Go and its modules; the image to build on is empty.
#
#   dockerfile.sh LAYOUT NAME [VERSION] [PLATFORM]
#
# The result replaces NAME in the OCI image layout LAYOUT. Root is not needed where
# buildah works without it.
set -euo pipefail

layout=$(mkdir -p "${1:?usage: dockerfile.sh LAYOUT NAME [VERSION] [PLATFORM]}" && cd "$1" && pwd)
name=${2:?usage: dockerfile.sh LAYOUT NAME [VERSION] [PLATFORM]}
version=${3:-dev}
platform=${4:-linux/$(go env GOARCH)}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

command -v buildah >/dev/null || {
	echo "image: buildah is missing: apt-get install buildah (or use \`make images\`, which needs none)" >&2
	exit 1
}

work=$(mktemp -d)
buildah=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs)
trap '"${buildah[@]}" rm --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
export BUILDAH_ISOLATION=chroot

# A shell, and the libraries that it needs, where it looks for them.
files=(/bin/sh)
while read -r library; do files+=("$library"); done < <(ldd /bin/sh | grep -o '/[^ ]*')
for file in "${files[@]}"; do
	install -D -m 755 "$(readlink -f "$file")" "$work/builder$file"
done
mkdir -p "$work/builder/tmp" "$work/builder/etc"
container=$("${buildah[@]}" from scratch)
"${buildah[@]}" copy --quiet "$container" "$work/builder" / >/dev/null
"${buildah[@]}" config \
	--env PATH=/usr/local/go/bin:/bin --env GOPATH=/go --env GOCACHE=/go/cache \
	--env GOPROXY=off --env GOTOOLCHAIN=local "$container"
"${buildah[@]}" commit --quiet "$container" localhost/builder >/dev/null

go mod download # what the build finds mounted
# Not --platform: Debian's buildah would look for a builder of that platform.
"${buildah[@]}" build --quiet --pull-never \
	--build-arg BUILDER=localhost/builder --build-arg BASE=scratch --build-arg "VERSION=$version" \
	--build-arg "TARGETOS=${platform%/*}" --build-arg "TARGETARCH=${platform#*/}" \
	--volume "$(go env GOROOT):/usr/local/go:ro" \
	--volume "$(go env GOMODCACHE):/go/pkg/mod:ro" \
	--volume "$(go env GOCACHE):/go/cache" \
	--tag localhost/built . >/dev/null
container=$("${buildah[@]}" from --pull-never localhost/built)
"${buildah[@]}" config --os "${platform%/*}" --arch "${platform#*/}" "$container"
"${buildah[@]}" commit --quiet "$container" "$name" >/dev/null
"${buildah[@]}" push --quiet "$name" "oci:$layout:$name"
echo "image: $name for $platform in $layout, from the Dockerfile" >&2
