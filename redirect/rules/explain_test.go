// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	const kernel = "the node's kernel lacks what capture Redirect needs, nftables with NAT: load its modules nf_tables, nft_chain_nat, nft_redir and nft_ct on the node, or use the pod annotation tokenward.io/capture=Port"
	for err, want := range map[syscall.Errno]string{
		syscall.EPERM:           "need the capability NET_ADMIN",
		syscall.EPROTONOSUPPORT: kernel,
		syscall.EOPNOTSUPP:      kernel,
		syscall.EAFNOSUPPORT:    kernel,
		syscall.ENOENT:          kernel,
		syscall.ENOMEM:          "set the rules of capture Redirect: cannot allocate memory",
	} {
		if got := explain(fmt.Errorf("flush: %w", err)).Error(); !strings.Contains(strings.ReplaceAll(got, "flush: ", ""), want) {
			t.Errorf("%v: %q lacks %q", err, got, want)
		}
	}
}

func TestAKernelWithoutIPv6(t *testing.T) {
	if got := families(filepath.Join(t.TempDir(), "if_inet6")); len(got) != 1 || got[0] != nftables.TableFamilyIPv4 {
		t.Errorf("families %v", got)
	}
	if got := families(t.TempDir()); len(got) != 2 {
		t.Errorf("families %v", got)
	}
}
