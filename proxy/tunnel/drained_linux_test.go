package tunnel_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// A message of a chatty connection costs one read, not a second one that finds nothing.
func TestNoReadIsMadeInVain(t *testing.T) {
	for name, test := range map[string]struct {
		uncounted, most int
	}{
		"from the first read on": {0, 110},
		"after fifty reads":      {50, 160},
		"never":                  {-1, 210},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := connected(t, "127.0.0.1:0")
			pieces := make(chan []byte)
			feed, tries := tunnel.FeedForTest(ours, test.uncounted, func(p []byte) bool {
				pieces <- bytes.Clone(p)
				return true
			})
			ended := make(chan error, 1)
			go func() {
				var err error
				for err == nil {
					err = feed()
				}
				ended <- err
			}()
			for i := range 100 {
				write(t, theirs, []byte{byte(i)})
				if p := <-pieces; len(p) != 1 || p[0] != byte(i) {
					t.Fatalf("byte %d came as %v", i, p)
				}
			}
			_ = theirs.Close()
			if err := <-ended; !errors.Is(err, io.EOF) {
				t.Errorf("it ended with %v", err)
			}
			n := tries()
			t.Logf("%d reads", n)
			if n > test.most || n < 101 {
				t.Errorf("100 pieces and the end took %d reads", n)
			}
		})
	}
}

// The end of the stream may come with the last bytes: there is no second word of it.
func TestTheEndOfAChattyPeerIsNotMissed(t *testing.T) {
	// It never looks, so that nothing parks an idle flow: what its goroutine does not find out is not
	// found out at all.
	k := tunnel.NewKeeper(tunnel.KeeperConfig{})
	k.CountAtOnceForTest()
	for range 200 {
		e := chatty(t, k)
		bye := frame(1, true, true, []byte("bye"))
		write(t, e.client, bye)
		_ = e.client.CloseWrite()
		expect(t, e.backend, bye)
		expectGone(t, e.backend)
		_ = e.backend.Close()
		expectRest(t, e.client)
		_ = e.client.Close()
		if r := e.wait(t); r.First != tunnel.Client || r.Err != nil {
			t.Fatalf("it ended with %+v", r)
		}
	}
}

// Nothing tells of a reset that comes with the last bytes: whoever parks the flow then finds it.
func TestAResetOfAChattyPeerIsFound(t *testing.T) {
	k := keep(t, hasty)
	k.CountAtOnceForTest()
	for range 200 {
		e := chatty(t, k)
		bye := frame(1, true, true, []byte("bye"))
		_ = e.client.SetLinger(0)
		write(t, e.client, bye)
		_ = e.client.Close()
		expect(t, e.backend, bye)
		expectGone(t, e.backend)
		_ = e.backend.Close()
		if r := e.wait(t); r.First != tunnel.Client || r.Err == nil {
			t.Fatalf("it ended with %+v", r)
		}
	}
}

// After a goodbye the end is looked for at once, a reset, too: nobody is parked any more then.
func TestAResetThatComesWithAGoodbyeIsFoundAtOnce(t *testing.T) {
	k := tunnel.NewKeeper(tunnel.KeeperConfig{}) // it never looks
	k.CountAtOnceForTest()
	for range 200 {
		e := chatty(t, k)
		bye := closeFrame(1000, "", true)
		_ = e.client.SetLinger(0)
		write(t, e.client, bye)
		_ = e.client.Close()
		expectRest(t, e.backend, bye)
		_ = e.backend.Close()
		e.wait(t)
	}
}

// expectGone reads what the backend is told of a client that has vanished, and the end.
func expectGone(t *testing.T, backend net.Conn) {
	t.Helper()
	if got := unmask(t, backend); !bytes.Equal(got, closeFrame(1001, "gone", false)) {
		t.Fatalf("the backend got %x", got)
	}
	expectRest(t, backend)
}

// chatty is a tunnel through which messages have gone both ways.
func chatty(t *testing.T, k *tunnel.Keeper) *ends {
	t.Helper()
	e := start(t, tunnel.Config{ClientGone: tunnel.CloseFrame{Code: 1001, Reason: "gone"}, Keeper: k}, nil, nil)
	hi, there := frame(1, true, true, []byte("hi")), frame(1, true, false, []byte("there"))
	for range 3 {
		write(t, e.client, hi)
		expect(t, e.backend, hi)
		write(t, e.backend, there)
		expect(t, e.client, there)
	}
	return e
}
