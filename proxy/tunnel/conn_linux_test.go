package tunnel_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// connected gives a connection that Connect has opened, and its other end.
func connected(t *testing.T, at string) (ours *tunnel.Socket, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Skipf("nothing can listen at %s: %v", at, err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() { // ends with the listener
		conn, _ := l.Accept()
		accepted <- conn
	}()
	to := netip.MustParseAddrPort(l.Addr().String())
	ours, err = tunnel.Connect(t.Context(), to, 1<<20, time.Now().Add(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	theirs = <-accepted
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return ours, theirs
}

func TestASocketIsAConnection(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			ours, theirs := connected(t, at)
			if a, b := ours.RemoteAddr().String(), theirs.LocalAddr().String(); a != b {
				t.Errorf("it is connected to %s, not %s", a, b)
			}
			if a, b := ours.LocalAddr().String(), theirs.RemoteAddr().String(); a != b {
				t.Errorf("it is at %s, not %s", a, b)
			}
			large := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than the kernel takes
			go func() {                                              // read to its end
				_, _ = ours.Write(large)
				_ = ours.CloseWrite()
			}()
			if got, err := io.ReadAll(theirs); err != nil || !bytes.Equal(got, large) {
				t.Errorf("%d bytes came of %d: %v", len(got), len(large), err)
			}
			if _, err := theirs.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			_ = theirs.Close()
			if got, err := io.ReadAll(ours); err != nil || string(got) != "answer" {
				t.Errorf("back came %q, %v", got, err)
			}
		})
	}
}

func TestASocketFailsAsConnectionsDo(t *testing.T) {
	ours, _ := connected(t, "127.0.0.1:0")
	_ = ours.SetReadDeadline(time.Unix(1, 0))
	_, err := ours.Read(make([]byte, 1))
	var netErr net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("after its deadline a read fails with %v", err)
	}
	_ = ours.SetWriteDeadline(time.Unix(1, 0))
	if _, err := ours.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after its deadline a write fails with %v", err)
	}
	_ = ours.SetDeadline(time.Time{})
	failed := make(chan error, 1)
	go func() { // ends with the connection
		_, err := ours.Read(make([]byte, 1))
		failed <- err
	}()
	_ = ours.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read under which it is closed fails with %v", err)
	}
	if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after its end fails with %v", err)
	}
}

func TestConnectTellsWhyItCouldNot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort(l.Addr().String())
	_ = l.Close()
	if _, err := tunnel.Connect(t.Context(), nobody, 1<<20, time.Now().Add(10*time.Second)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where nobody listens it fails with %v", err)
	}
	full := listenFull(t)
	if _, err := tunnel.Connect(t.Context(), full, 1<<20, time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("where nobody answers it fails with %v", err)
	}
}

// listenFull gives the address of a listener that answers nobody: its queue is full.
func listenFull(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	for range 2 { // one is let in beyond the queue's length
		conn, err := tunnel.Connect(t.Context(), at, 1<<20, time.Now().Add(100*time.Millisecond))
		if err != nil {
			return at
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	return at
}

// What the poller learns before the wait begins must not be lost: a connection that is there by
// then would be given up when its time has passed.
func TestConnectDoesNotMissAnEarlyAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The pause only gives the poller the time to learn it.
	s, err := tunnel.ConnectAfterForTest(netip.MustParseAddrPort(l.Addr().String()), 100*time.Millisecond, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
}
