// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testservers

import "syscall"

// endWithThread has the kernel send the signal when the thread that starts the process ends.
func endWithThread(process *syscall.SysProcAttr, signal syscall.Signal) { process.Pdeathsig = signal }
