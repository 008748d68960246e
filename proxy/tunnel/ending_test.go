package tunnel_test

import (
	"bytes"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

func TestHalfCloseIsPassedOnAndTheAnswerStillArrives(t *testing.T) {
	t.Parallel()
	e := start(t, tunnel.Config{ClientGone: tunnel.CloseFrame{Code: 1001, Reason: "client gone"}}, nil, nil)
	bye, answer := closeFrame(1000, "", true), closeFrame(1000, "", false)
	write(t, e.client, bye)
	_ = e.client.CloseWrite()
	expectRest(t, e.backend, bye) // its own close frame, and none of ours
	write(t, e.backend, frame(1, true, false, []byte("last")), answer)
	_ = e.backend.Close()
	expectRest(t, e.client, frame(1, true, false, []byte("last")), answer)
	r := e.wait(t)
	if r.First != tunnel.Client || r.Err != nil || r.FromClient == nil || r.FromBackend == nil {
		t.Errorf("ended with %+v", r)
	}
}

func TestAVanishedClientIsToldToTheBackend(t *testing.T) {
	t.Parallel()
	e := start(t, tunnel.Config{ClientGone: tunnel.CloseFrame{Code: 1001, Reason: "client gone"}}, nil, nil)
	_ = e.client.Close()
	if got := unmask(t, e.backend); !bytes.Equal(got, closeFrame(1001, "client gone", false)) {
		t.Errorf("the backend got %x", got)
	}
	expectRest(t, e.backend)
	_ = e.backend.Close()
	if r := e.wait(t); r.First != tunnel.Client || r.FromClient != nil {
		t.Errorf("ended with %+v", r)
	}
}

func TestAVanishedBackendIsToldToTheClient(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		e := start(t, tunnel.Config{BackendGone: tunnel.CloseFrame{Code: 1011, Reason: "container_lost"}}, nil, nil)
		hi := frame(1, true, false, []byte("hi"))
		write(t, e.backend, hi)
		expect(t, e.client, hi)
		if reset {
			_ = e.backend.SetLinger(0)
		}
		_ = e.backend.Close()
		// The client goes on talking: its bytes must not turn the close frame into a reset.
		write(t, e.client, frame(1, true, true, []byte("still there?")))
		expectRest(t, e.client, closeFrame(1011, "container_lost", false))
		_ = e.client.Close()
		if r := e.wait(t); r.First != tunnel.Backend || (r.Err != nil) != reset {
			t.Errorf("reset %v: ended with %+v", reset, r)
		}
	}
}

func TestABackendThatVanishesAmidAFrameOnlyEndsTheStream(t *testing.T) {
	t.Parallel()
	e := start(t, tunnel.Config{BackendGone: tunnel.CloseFrame{Code: 1011, Reason: "container_lost"}}, nil, nil)
	half := frame(2, true, false, make([]byte, 100))[:50]
	write(t, e.backend, half)
	expect(t, e.client, half)
	_ = e.backend.Close()
	expectRest(t, e.client)
	_ = e.client.Close()
	e.wait(t)
}

func TestAPeerThatNeverEndsIsNotWaitedForForever(t *testing.T) {
	t.Parallel()
	e := start(t, tunnel.Config{}, nil, nil)
	_ = e.client.CloseWrite() // the backend neither answers nor ends
	begun := time.Now()
	e.wait(t)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// deaf is a connection whose peer takes nothing any more, and says nothing either.
type deaf struct{ net.Conn }

func (deaf) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestABackendThatTakesNothingAnyMoreIsToldToTheClient(t *testing.T) {
	t.Parallel()
	client, inClient := tcpPair(t)
	_, inBackend := tcpPair(t)
	tun := tunnel.New(tunnel.Peer{Conn: inClient}, tunnel.Peer{Conn: deaf{inBackend}},
		tunnel.Config{BackendGone: tunnel.CloseFrame{Code: 1011, Reason: "container_lost"}, Keeper: keeperOf(t)})
	done := make(chan tunnel.Result, 1)
	go func() { done <- tun.Run() }()
	write(t, client, frame(1, true, true, []byte("hi")))
	expectRest(t, client, closeFrame(1011, "container_lost", false))
	_ = client.Close()
	if r := <-done; r.First != tunnel.Backend || r.Err == nil {
		t.Errorf("ended with %+v", r)
	}
}

// A client that takes every frame for a message must not get one that is none.
func TestAPlainClientGetsTheEndOfTheStreamInsteadOfACloseFrame(t *testing.T) {
	t.Parallel()
	last := frame(1, true, false, []byte("last"))
	for name, end := range map[string]func(e *ends){
		"of the backend's":                   func(e *ends) { write(t, e.backend, append(bytes.Clone(last), closeFrame(1000, "released", false)...)) },
		"without a code, and more behind it": func(e *ends) { write(t, e.backend, append(append(bytes.Clone(last), 0x88, 0), last...)) },
		"of ours": func(e *ends) {
			write(t, e.backend, last)
			expect(t, e.client, last)
			e.tunnel.Close(1012, "draining")
		},
	} {
		e := start(t, tunnel.Config{PlainClient: true, ClientGone: tunnel.CloseFrame{Code: 1001}}, nil, nil)
		end(e)
		if name == "of ours" {
			expectRest(t, e.client)
		} else {
			expectRest(t, e.client, last)
		}
		_ = e.client.Close()
		_ = e.backend.Close()
		if r := e.wait(t); r.Err != nil {
			t.Errorf("a close frame %s ended with %+v", name, r)
		}
	}
}

func TestOnlyARealKeyShowsThatControlFramesAreKnown(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{"dGhlIHNhbXBsZSBub25jZQ==": true, "nil": false, "": false, "c2hvcnQ=": false} {
		if got := tunnel.KnowsControl(&http.Request{Header: http.Header{"Sec-Websocket-Key": {key}}}); got != want {
			t.Errorf("with %q: %v", key, got)
		}
	}
}
