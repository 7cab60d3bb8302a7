#!/usr/bin/env bash
# Copyright The Tokenward Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Builds the product's image of another commit into an OCI image layout, under the tag
# of that commit, and writes that commit's manifest for it: what a test upgrades from.
#
#   previous.sh COMMIT LAYOUT IMAGE MANIFEST
set -euo pipefail

usage="usage: previous.sh COMMIT LAYOUT IMAGE MANIFEST"
commit=${1:?$usage} layout=${2:?$usage} image=${3:?$usage} manifest=${4:?$usage}

if ! full=$(git rev-parse --quiet --verify "$commit^{commit}"); then
	if [[ $(git rev-parse --is-shallow-repository) != true ]]; then
		echo "image: there is no commit $commit that e2e could upgrade from: name another one with PREVIOUS=" >&2
		exit 1
	fi
	# A clone without history: the farthest back that it goes, and it is said.
	full=$(git rev-list HEAD | tail -n 1)
	echo "image: this shallow clone does not have the commit $commit: e2e upgrades from $full instead; \`git fetch --unshallow\` gets the other" >&2
fi
tag=previous-${full:0:12}
name=${image%:*}

if ! grep -qs "\"$name:$tag\"" "$layout/index.json"; then
	source=$(mktemp -d)
	trap 'rm -rf "$source"' EXIT
	git archive "$full" | tar -x -C "$source"
	go run ./hack/image -root "$source" -out "$layout" -name "$name:$tag" -version "$tag" -product
fi
mkdir -p "$(dirname "$manifest")"
git show "$full:dist/install.yaml" | sed "s|$image|$name:$tag|" >"$manifest"
