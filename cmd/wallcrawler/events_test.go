package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
)

const followersKey = "key-of-the-follower-0123456789"

// eventServer serves the API over a Redis that outlives it.
type eventServer struct {
	t     *testing.T
	store *redisstore.Store
	addr  string
	stop  func()
}

// noClients is a relay that nobody uses here.
type noClients struct{ api.Relay }

func (noClients) Count() int { return 0 }

func (s *eventServer) start() {
	s.t.Helper()
	ok := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	keys, err := auth.NewKeys(auth.Key{Key: followersKey, Name: "follower"})
	ok(err)
	tokens, err := auth.NewTokens("session-secret-0123456789abcdef")
	ok(err)
	containers, err := auth.NewContainerKeys("container-secret-0123456789abcde")
	ok(err)
	server, err := api.New(api.Config{
		Store: s.store, Mirror: state.NewMirror(s.store, state.MirrorOptions{}), Tokens: tokens, Keys: keys, ContainerKeys: containers,
		Relay: noClients{}, Replica: "r1",
	})
	ok(err)
	listener, err := net.Listen("tcp", s.addr)
	ok(err)
	s.addr = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	s.stop = func() {
		cancel()
		ok(<-served)
	}
}

func (s *eventServer) note(from, to int) {
	s.t.Helper()
	for i := from; i < to; i++ {
		e := state.Event{Kind: state.KindPool, Reason: state.EventObeyed, Message: fmt.Sprint("event ", i)}
		if i%3 == 0 {
			e = state.Event{Kind: state.KindSession, Object: "ses_1", Reason: state.EventEnded, Message: e.Message, User: "follower"}
		}
		if err := s.store.Note(s.t.Context(), e); err != nil {
			s.t.Fatal(err)
		}
		// Not for the follower, who must not stumble over them.
		if err := s.store.Note(s.t.Context(), state.Event{Kind: state.KindSession, Object: "ses_2", Message: "secret", User: "other"}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Whoever follows sees each event once, in order, whatever happens to the service meanwhile.
func TestFollowingOutlivesTheServer(t *testing.T) {
	store, err := redisstore.Open(t.Context(), redisstore.Options{Addrs: []string{miniredis.RunT(t).Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	s := &eventServer{t: t, store: store, addr: "127.0.0.1:0"}
	s.start()
	s.note(0, 5) // of which the last three are asked for

	read, write := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() {
		c := apiClient{server: "http://" + s.addr, key: followersKey}
		write.CloseWithError(printEvents(ctx, write, c, url.Values{"limit": {"3"}}, true, true))
	})
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(read); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	defer func() {
		cancel()
		_ = read.Close()
		following.Wait()
	}()
	next := 2
	follow := func(until int) {
		t.Helper()
		for ; next < until; next++ {
			select {
			case line := <-lines:
				var e eventView
				if err := json.Unmarshal([]byte(line), &e); err != nil || e.Message != fmt.Sprint("event ", next) {
					t.Fatalf("got %q (%v), want event %d", line, err, next)
				}
			case <-time.After(time.Minute):
				t.Fatalf("event %d never came", next)
			}
		}
	}

	follow(5)
	s.note(5, 7)
	follow(7)
	s.stop()
	s.note(7, 15) // more than one answer holds
	s.start()
	s.note(15, 16)
	follow(16)
	s.stop()
	s.start()
	s.note(16, 17)
	follow(17)
	cancel()
	for line := range lines {
		t.Errorf("after all that: %q", line)
	}
	following.Wait()
	s.stop()
}

// People are told that the service is away.
func TestFollowingSaysThatItWaits(t *testing.T) {
	store, err := redisstore.Open(t.Context(), redisstore.Options{Addrs: []string{miniredis.RunT(t).Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	s := &eventServer{t: t, store: store, addr: "127.0.0.1:0"}
	s.start()
	s.note(1, 2)
	read, write := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() {
		c := apiClient{server: "http://" + s.addr, key: followersKey}
		write.CloseWithError(printEvents(ctx, write, c, url.Values{"limit": {"3"}}, true, false))
	})
	defer func() { cancel(); _ = read.Close(); following.Wait() }()
	scan := bufio.NewScanner(read)
	line := func() string { scan.Scan(); return scan.Text() }
	if got := line(); !strings.HasSuffix(got, "obeyed         pool: event 1") {
		t.Errorf("first: %q", got)
	}
	s.stop()
	if got := line(); !strings.HasPrefix(got, "waiting: asking http://"+s.addr) {
		t.Errorf("while the service is away: %q", got)
	}
	s.start()
	s.note(2, 3)
	got := line()
	for strings.HasPrefix(got, "waiting: ") {
		got = line() // for another reason: its connection broke before it was refused
	}
	if !strings.HasSuffix(got, "obeyed         pool: event 2") {
		t.Errorf("once it is back: %q", got)
	}
	s.stop()
}

// Events that are not for the follower are not read again and again.
func TestFollowingGoesOnWhereTheServiceHasReadTo(t *testing.T) {
	asked := make(chan string, 8)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after := r.URL.Query().Get("after")
		asked <- after
		if after == "" {
			w.Header().Set("Events-Read", "7-0")
		} else {
			cancel()
		}
		_, _ = io.WriteString(w, "[]")
	}))
	defer server.Close()
	if err := printEvents(ctx, io.Discard, apiClient{server: server.URL, key: followersKey}, url.Values{}, true, true); err != nil {
		t.Fatal(err)
	}
	if first, second := <-asked, <-asked; first != "" || second != "7-0" {
		t.Errorf("asked for what came after %q and %q", first, second)
	}
}
