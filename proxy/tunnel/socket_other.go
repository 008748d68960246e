//go:build !linux

package tunnel

import (
	"errors"
	"net"
	"syscall"
	"time"
)

func rawRead(fd uintptr, p []byte) (int, syscall.Errno) { return rawIO(syscall.Read(int(fd), p)) }

func rawWrite(fd uintptr, p []byte) (int, syscall.Errno) { return rawIO(syscall.Write(int(fd), p)) }

func rawIO(n int, err error) (int, syscall.Errno) {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return 0, errno
	}
	return n, 0
}

// rawReceive is rawRead. More may always be left.
func rawReceive(fd uintptr, p []byte, _ bool) (n int, left bool, errno syscall.Errno) {
	n, errno = rawRead(fd, p)
	return n, true, errno
}

// countQueued is what cannot be had here.
func countQueued(uintptr) bool { return false }

// tune finds a peer that went away without a word, if nothing is under way to it.
func tune(conn net.Conn, _ Side, _ time.Duration) {
	if tcp, ok := under(conn).(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
		})
	}
}

// TuneListener does nothing here: each connection is tuned.
func TuneListener(syscall.RawConn, time.Duration) {}

// acknowledged is what nobody knows here.
func acknowledged(net.Conn) uint64 { return 0 }

// unheard is what nobody knows here.
func unheard(net.Conn) time.Duration { return 0 }

// disconnect does nothing here: nobody is found to be lost.
func disconnect(net.Conn) {}
