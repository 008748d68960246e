package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/state"
)

// witness runs a witness of replica r1 that takes everybody for silent, and asks often.
func (w *world) witness(relay *proxy.Relay) {
	w.t.Helper()
	w.background(proxy.NewWitness(proxy.WitnessConfig{
		Replica: "r1", Store: w.store, Mirror: w.mirror, Relay: relay, Every: 10 * time.Millisecond, SilentAfter: time.Nanosecond,
	}).Run)
}

// testimony waits for what r1 says of a container after it has said something, until that suits.
func (w *world) testimony(container, what string, suits func(state.Testimony) bool) (found state.Testimony) {
	w.t.Helper()
	w.await(container+" "+what, func() bool {
		said, err := w.store.Testimonies(w.t.Context(), []string{container})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(said) == 1 {
			found = said[0]
		}
		return len(said) == 1 && suits(found)
	})
	return found
}

func inVain(t state.Testimony) bool { return t.Silent > 50*time.Millisecond }

func TestAWitnessAsksASessionsBrowser(t *testing.T) {
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/sessions/ses_1/json/version") {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"Browser":"Chrome"}`)
		}
	}
	for name, test := range map[string]struct {
		client http.HandlerFunc
		suits  func(state.Testimony) bool
	}{
		"it answers":                     {answer(200), func(s state.Testimony) bool { return s.Silent == 0 }},
		"it knows better":                {answer(404), func(s state.Testimony) bool { return s.Silent == 0 }},
		"its browser does not answer it": {answer(502), inVain},
		"it accepts and says nothing":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, inVain},
	} {
		t.Run(name, func(t *testing.T) {
			w, c, f := linked(t)
			c.client = test.client
			w.witness(f.relay)
			said := w.testimony("cnt_1", name, test.suits)
			if said.BootID != c.bootID || said.Replica != "r1" {
				t.Errorf("said %+v", said)
			}
		})
	}
}

func TestAWitnessAsksAnEmptyContainerForItsHealth(t *testing.T) {
	w := newWorld(t)
	front := w.front(0)
	listen := func(id string) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		c, err := w.store.Register(t.Context(), state.Registration{ID: id, Launch: id, BootID: "boot", Protocol: 2, MaxSessions: 1, Owner: "r1"})
		if err != nil {
			t.Fatal(err)
		}
		by := state.Authority{Container: id, OwnerSeq: c.OwnerSeq}
		if _, err := w.store.Report(t.Context(), by, state.Report{BootID: "boot", Addr: l.Addr().String()}); err != nil {
			t.Fatal(err)
		}
		return l
	}
	listen("cnt_hung") // the machine takes its connections, nobody answers them
	gone := listen("cnt_gone")
	_ = gone.Close()
	well := listen("cnt_well")
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			t.Errorf("asked for %s", r.URL.Path)
		}
	})}
	go func() { _ = server.Serve(well) }()
	t.Cleanup(func() { _ = server.Close() })
	w.await("the mirror", func() bool { return len(w.mirror.Containers()) == 3 })
	w.witness(front.relay)
	w.testimony("cnt_hung", "is asked in vain", inVain)
	w.testimony("cnt_gone", "is asked in vain", inVain)
	w.testimony("cnt_well", "answers", func(s state.Testimony) bool { return s.Silent == 0 })
}

func TestWhatReachesAClientSpeaksForItsContainer(t *testing.T) {
	w, _, f := linked(t)
	w.witness(f.relay)
	conn, _ := f.connect("/sessions/ses_1/ws")
	talk(t, conn)
	for range 3 {
		before := w.testimony("cnt_1", "to be quiet", func(s state.Testimony) bool { return s.Quiet > 100*time.Millisecond })
		talk(t, conn)
		w.testimony("cnt_1", "to have been heard", func(s state.Testimony) bool { return s.Quiet < before.Quiet })
	}
	before := w.testimony("cnt_1", "to be quiet", func(s state.Testimony) bool { return s.Quiet > 100*time.Millisecond })
	talk(t, conn)
	_ = conn.Close()
	w.testimony("cnt_1", "to have been heard, although its client is gone", func(s state.Testimony) bool { return s.Quiet < before.Quiet })
}

func TestWhatAClientSendsDoesNot(t *testing.T) {
	w, c, f := linked(t)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	c.client = func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/devtools/browser") {
			<-r.Context().Done()
			return
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		<-over
	}
	w.witness(f.relay)
	conn, _ := f.connect("/sessions/ses_1/ws")
	last := w.testimony("cnt_1", "to be spoken of", func(state.Testimony) bool { return true })
	for range 3 {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"id":1}`)); err != nil {
			t.Fatal(err)
		}
		next := w.testimony("cnt_1", "to be spoken of again", func(s state.Testimony) bool { return s.At.After(last.At) })
		if next.Quiet < last.Quiet {
			t.Fatalf("quiet for %s, and before that for %s: what a client sends speaks for nobody", next.Quiet, last.Quiet)
		}
		last = next
	}
}

func TestClientsOfALostSessionAreTold(t *testing.T) {
	for reason, code := range map[state.Reason]int{state.ContainerLost: 1011, state.StoppedExternally: 1011} {
		w, c, f := linked(t)
		c.client = c.talking
		w.serving("ses_2", c)
		w.witness(f.relay)
		conn, _ := f.connect("/sessions/ses_1/ws")
		other, _ := f.connect("/sessions/ses_2/ws")
		talk(t, conn)
		if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_1", Reason: reason, Confirmed: true}); err != nil {
			t.Fatal(err)
		}
		_, _, err := conn.ReadMessage()
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != code || closed.Text != string(reason) {
			t.Errorf("the client heard %v, want %d %s", err, code, reason)
		}
		w.await("the end to be noted", func() bool {
			all := f.relay.Connections("ses_1")
			return len(all) == 1 && !all[0].Closed.IsZero()
		})
		if got := f.relay.Connections("ses_1")[0]; got.ClosedBy != "backend" || got.Code != code || got.Reason != string(reason) {
			t.Errorf("noted: closed by %s with %d %q", got.ClosedBy, got.Code, got.Reason)
		}
		talk(t, other)
	}
}

// A replica without a free descriptor has asked nobody, and blames nobody.
func TestWhoCannotAskTestifiesNothing(t *testing.T) {
	for name, serving := range map[string]bool{"a browser": true, "a container's health": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.links("r1")
			c := w.ready("cnt_1")
			if serving {
				w.serving("ses_1", c)
			}
			var lacks atomic.Bool
			lacks.Store(true)
			var tried atomic.Int64
			f := w.frontOf(proxy.NewRelay(proxy.RelayConfig{
				Mirror: w.mirror, Store: w.store, Secret: secretOf, Registerer: w.reg,
				Dial: func(context.Context, string, string) (net.Conn, error) {
					tried.Add(1)
					if lacks.Load() {
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
					}
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
				},
			}))
			w.witness(f.relay)
			w.await("some questions", func() bool { return tried.Load() > 5 })
			if said, err := w.store.Testimonies(t.Context(), []string{"cnt_1"}); err != nil || len(said) > 0 {
				t.Fatalf("said %+v, %v", said, err)
			}
			lacks.Store(false)
			w.testimony("cnt_1", "is asked in vain", inVain)
		})
	}
}
