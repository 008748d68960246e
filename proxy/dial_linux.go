package proxy

import "syscall"

// receiveBuffer bounds what the kernel takes from a container for a client that does not keep
// up: without it that grows to many megabytes. The kernel doubles it for its own needs.
const receiveBuffer = 1 << 20

// limitReceive must come before the connection is made: the window is agreed on then.
func limitReceive(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
	})
}
