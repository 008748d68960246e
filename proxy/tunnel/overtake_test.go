package tunnel_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// A backend answers a close frame at once. However busy the machine is, the client is told what
// Close was called with, and not that answer.
func TestCloseIsNotOvertakenByTheBackendsAnswer(t *testing.T) {
	t.Parallel()
	for range 300 {
		e := start(t, tunnel.Config{}, nil, nil)
		hi := frame(1, true, false, []byte("hi"))
		write(t, e.backend, hi)
		expect(t, e.client, hi)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_, _ = e.backend.Read(make([]byte, 64))
			_, _ = e.backend.Write(closeFrame(1000, "", false))
			_ = e.backend.CloseWrite()
		}()
		e.tunnel.Close(1012, "draining")
		_ = e.client.SetReadDeadline(time.Now().Add(30 * time.Second))
		got, err := io.ReadAll(e.client)
		if want := closeFrame(1012, "draining", false); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the client got %x, %v, and not %x", got, err, want)
		}
		<-answered
		_ = e.client.Close()
		_ = e.backend.Close()
		e.wait(t)
	}
}
