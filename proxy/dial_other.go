//go:build !linux

package proxy

import "syscall"

// limitReceive is Linux's.
func limitReceive(syscall.RawConn) {}
