package tunnel

import (
	"encoding/binary"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// rawRead and rawWrite are recv(2) and send(2) for sockets that never block, for which the
// scheduler need not be told. Read and write would go a longer way, through the file's layer.
func rawRead(fd uintptr, p []byte) (int, syscall.Errno) {
	return rawIO(syscall.SYS_RECVFROM, fd, p, 0)
}

func rawWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	return rawIO(syscall.SYS_SENDTO, fd, p, syscall.MSG_NOSIGNAL)
}

// rawIO returns a count above zero, or zero: with an errno a failure, without one the end.
// p is not empty.
func rawIO(call, fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// received is what the kernel fills in along with the bytes that it hands over.
type received struct {
	header  syscall.Msghdr
	bytes   syscall.Iovec
	control struct {
		header syscall.Cmsghdr
		left   int32
		_      [4]byte
	}
}

// rawReceive is rawRead, which also tells whether anything may be left to be read, the end of
// the stream included. A reset is not told of. Without counted, which countQueued must have
// gone before, something may always be left.
func rawReceive(fd uintptr, p []byte, counted bool) (n int, left bool, errno syscall.Errno) {
	if !counted {
		n, errno = rawRead(fd, p)
		return n, true, errno
	}
	var r received
	r.bytes.Base = &p[0]
	r.bytes.SetLen(len(p))
	r.header.Iov, r.header.Iovlen = &r.bytes, 1
	r.header.Control = (*byte)(unsafe.Pointer(&r.control))
	r.header.SetControllen(int(unsafe.Sizeof(r.control)))
	got, _, errno := syscall.RawSyscall(syscall.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r)), 0)
	if errno != 0 {
		return 0, true, errno
	}
	c := &r.control
	known := int(r.header.Controllen) >= syscall.CmsgLen(4) && c.header.Level == syscall.IPPROTO_TCP && c.header.Type == tcpQueued
	return int(got), !known || c.left != 0, 0
}

// countQueued has the kernel tell with each read how many bytes are left, one at the end of
// the stream. It tells whether it can.
func countQueued(fd uintptr) bool { return setOption(fd, syscall.IPPROTO_TCP, tcpQueued, 1) }

// unheard is for how long the peer has not answered anything, be it what was sent or a probe; zero
// if nobody knows, or if the peer wants nothing now: then it is asked too rarely.
func unheard(conn net.Conn) (d time.Duration) {
	const unacked, lastAckReceived, notSent = 24, 56, 144 // 32 bits wide
	info, ok := tcpInfo(conn)
	at := func(offset int) uint32 { return binary.NativeEndian.Uint32(info[offset:]) }
	if ok && (at(unacked) > 0 || at(notSent) == 0) {
		d = time.Duration(at(lastAckReceived)) * time.Millisecond
	}
	return d
}

// acknowledged is how many bytes the peer has taken in all; zero if nobody knows.
func acknowledged(conn net.Conn) uint64 {
	const bytesAcked = 120
	info, _ := tcpInfo(conn)
	return binary.NativeEndian.Uint64(info[bytesAcked:])
}

// tcpInfoSize is how much of struct tcp_info is asked for: what is needed of it.
const tcpInfoSize = 148

// tcpInfo is what the kernel knows of a connection, all zero if nothing.
func tcpInfo(conn net.Conn) (info [tcpInfoSize]byte, ok bool) {
	raw := rawConn(under(conn))
	if raw == nil {
		return info, false
	}
	_ = raw.Control(func(fd uintptr) {
		got := uint32(tcpInfoSize)
		_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&got)), 0)
		ok = errno == 0 && got == tcpInfoSize
	})
	return info, ok
}

// disconnect ends a connection at once: whoever reads from it or writes to it fails.
func disconnect(conn net.Conn) {
	if raw := rawConn(under(conn)); raw != nil {
		_ = raw.Control(func(fd uintptr) {
			to := syscall.RawSockaddr{Family: syscall.AF_UNSPEC}
			_, _, _ = syscall.RawSyscall(syscall.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		})
	}
}

// Linux's names that package syscall does not know.
const (
	tcpUserTimeout  = 18
	tcpNotSentLowat = 25
	tcpQueued       = 36 // TCP_INQ, since 4.18; that it counts the stream's end since 5.1
)

// notSent is how many bytes of one client may wait in the kernel before they are on their way.
const notSent = 1 << 20

// tune has the kernel find a peer that went away without a word: within 25 s if nothing is
// under way, within userTimeout if something is. What waits for a client is bounded.
func tune(conn net.Conn, side Side, userTimeout time.Duration) {
	if raw := rawConn(under(conn)); raw != nil {
		tuneRaw(raw, side, userTimeout)
	}
}

// TuneListener sets on a listening socket what clients' sockets need: they inherit it, so that
// nothing is left to be set for each. It is made for net.ListenConfig.Control. stall is the keeper's.
func TuneListener(raw syscall.RawConn, stall time.Duration) {
	tuneRaw(raw, Client, clientTimeout(stall))
}

func tuneRaw(raw syscall.RawConn, side Side, userTimeout time.Duration) {
	_ = raw.Control(func(fd uintptr) {
		set := func(level, name, value int) { _ = setOption(fd, level, name, value) }
		wanted := int32(userTimeout / time.Millisecond)
		if side == Client {
			var has, size int32 = 0, 4
			_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, tcpUserTimeout,
				uintptr(unsafe.Pointer(&has)), uintptr(unsafe.Pointer(&size)), 0)
			if errno == 0 && has == wanted {
				return // inherited
			}
			set(syscall.IPPROTO_TCP, tcpNotSentLowat, notSent)
		}
		set(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
		set(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAliveIdle/time.Second))
		set(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(keepAliveInterval/time.Second))
		set(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAliveCount)
		set(syscall.IPPROTO_TCP, tcpUserTimeout, int(wanted))
	})
}
