package agent_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/agent"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

const (
	short = int64(50)      // milliseconds: what is to pass within a test
	long  = int64(600_000) // what is not
)

func TestGraceDependsOnHowTheLastClientLeft(t *testing.T) {
	clean := func(code int) func(*client) { return func(cl *client) { cl.bye(code); _ = cl.closed() } }
	vanish := func(cl *client) { _ = cl.NetConn().Close() }
	for _, tc := range []struct {
		name      string
		limits    wire.Limits
		leave     func(*client)
		ends      bool
		graceLeft bool
	}{
		{"a good-bye starts the short one", wire.Limits{DisconnectGrace: short, LostGrace: long}, clean(1000), true, false},
		{"a relay that vanished starts the long one", wire.Limits{DisconnectGrace: short, LostGrace: long}, vanish, false, true},
		{"which passes as well", wire.Limits{DisconnectGrace: long, LostGrace: short}, vanish, true, false},
		{"so does a relay that is being replaced", wire.Limits{DisconnectGrace: short, LostGrace: long}, clean(1012), false, true},
		{"a session kept alive waits for ever", wire.Limits{KeepAlive: true, DisconnectGrace: short, LostGrace: short}, clean(1000), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, nil)
			o := c.link(1)
			o.session("s1", 1, tc.limits)
			stays, leaves := c.connect("s1"), c.connect("s1")
			o.report("both", func(r wire.Report) bool { return len(r.Sessions) == 1 && r.Sessions[0].Attached == 2 })
			tc.leave(stays)
			r := o.report("one left", func(r wire.Report) bool { return len(r.Sessions) == 1 && r.Sessions[0].Attached == 1 })
			if r.Sessions[0].GraceLeft != -1 {
				t.Error("the grace runs beside a client")
			}
			leaves.ask("still here")
			tc.leave(leaves)
			if tc.ends {
				if n := o.notice(wire.SessionEnded, "s1"); n.Reason != "disconnected" {
					t.Errorf("notice %+v", n)
				}
				return
			}
			r = o.report("none", func(r wire.Report) bool { return len(r.Sessions) == 1 && r.Sessions[0].Attached == 0 })
			if got := r.Sessions[0].GraceLeft; tc.graceLeft != (got > long/2) || !tc.graceLeft && got != -1 {
				t.Errorf("grace left: %d ms", got)
			}
			c.connect("s1").ask("back again")
			r = o.report("back", func(r wire.Report) bool { return r.Sessions[0].Attached == 1 })
			if r.Sessions[0].GraceLeft != -1 {
				t.Error("the grace runs although a client is back")
			}
		})
	}
}

func TestLimitsEndASession(t *testing.T) {
	for _, tc := range []struct {
		name    string
		limits  wire.Limits
		connect bool
		reason  string
	}{
		{"nobody came", wire.Limits{FirstConnect: short}, false, "not_connected"},
		{"nothing moved although a client is there", wire.Limits{Idle: short, FirstConnect: long}, true, "idle"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, nil)
			o := c.link(1)
			if !tc.connect {
				o.session("s1", 1, tc.limits)
			} else {
				o.session("s1", 1, wire.Limits{})
				cl := c.connect("s1")
				cl.ask("hello")
				o.order(wire.Order{Type: wire.UpdateSession, SessionID: "s1", Limits: &tc.limits})
				if got := cl.closed(); got.Code != 1000 || got.Text != tc.reason {
					t.Errorf("client was told %+v", got)
				}
			}
			if n := o.notice(wire.SessionEnded, "s1"); n.Reason != tc.reason {
				t.Errorf("notice %+v", n)
			}
		})
	}
}

func TestFirstConnectIsMetByAnyClient(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 1, wire.Limits{FirstConnect: long})
	c.connect("s1").bye(1000)
	o.report("gone again", func(r wire.Report) bool {
		return len(r.Sessions) == 1 && r.Sessions[0].Connected && r.Sessions[0].Attached == 0
	})
	o.order(wire.Order{Type: wire.UpdateSession, SessionID: "s1", Limits: &wire.Limits{FirstConnect: 1}})
	o.order(wire.Order{Type: wire.Drain, DrainSeq: 1}) // which is reported at once
	r := o.report("the orders obeyed", func(r wire.Report) bool { return r.Ack == 3 })
	if len(r.Sessions) != 1 {
		t.Error("the session ended")
	}
}

func TestDrainIsAcknowledgedWithZeroSessions(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 1, wire.Limits{})
	o.order(wire.Order{Type: wire.Drain, DrainSeq: 3})
	r := o.report("draining", func(r wire.Report) bool { return r.Draining })
	if r.DrainAck != 0 {
		t.Errorf("drain %d acknowledged with a session", r.DrainAck)
	}
	o.order(create("s2", 2, wire.Limits{}))
	if n := o.notice(wire.SessionError, "s2"); n.Error != "container is draining" {
		t.Errorf("error %q", n.Error)
	}
	o.session("s1", 1, wire.Limits{}) // what is held already is no admission
	o.order(wire.Order{Type: wire.DestroySession, SessionID: "s1"})
	o.report("acknowledged", func(r wire.Report) bool { return r.DrainAck == 3 && len(r.Sessions) == 0 })

	o.order(wire.Order{Type: wire.Undrain, DrainSeq: 2}) // older than what was obeyed
	o.order(create("s3", 3, wire.Limits{}))
	o.notice(wire.SessionError, "s3")
	o.order(wire.Order{Type: wire.Undrain, DrainSeq: 4})
	o.report("open again", func(r wire.Report) bool { return !r.Draining && r.DrainAck == 3 })
	o.session("s3", 3, wire.Limits{})
}

func TestLinkWantsTheSecret(t *testing.T) {
	c := start(t, nil)
	c.link(1).report("first", func(wire.Report) bool { return true })
	for _, given := range []string{"", "wrong", secret + "x", token} {
		if _, status := c.dialLink(2, given); status != http.StatusUnauthorized {
			t.Errorf("with the secret %q: status %d", given, status)
		}
		for _, path := range []string{"/sessions/s1/json/version", "/sessions/s1/devtools/browser"} {
			status, body := c.get(http.MethodGet, path, http.Header{"Authorization": {"Bearer " + given}})
			if status != http.StatusUnauthorized || strings.Contains(body, "canary") {
				t.Errorf("%s with the secret %q: %d %s", path, given, status, body)
			}
		}
	}
}

func TestLaterOwnerReplacesTheLink(t *testing.T) {
	c := start(t, nil)
	first := c.link(5)
	first.session("s1", 1, wire.Limits{})
	cl := c.connect("s1")
	second := c.link(6)
	r := second.report("the first", func(wire.Report) bool { return true })
	if len(r.Sessions) != 1 || r.Ack != 0 {
		t.Errorf("the first report is %+v", r)
	}
	for range first.notices {
	}
	var ce *websocket.CloseError
	if !errors.As(first.err, &ce) || ce.Code != websocket.ClosePolicyViolation {
		t.Errorf("the old link ended with %v", first.err)
	}
	if _, status := c.dialLink(5, secret); status != http.StatusConflict {
		t.Errorf("a lower owner got %d", status)
	}
	if _, status := c.dialLink(-1, secret); status != http.StatusBadRequest {
		t.Errorf("a senseless owner got %d", status)
	}
	cl.ask("untouched")
	second.order(wire.Order{Type: wire.DestroySession, SessionID: "s1"})
	second.notice(wire.SessionEnded, "s1")
}

func TestNewLinkHearsWhatEndedMeanwhile(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 4, wire.Limits{})
	cl := c.connect("s1")
	_ = o.conn.Close()
	eventually(t, "the loss of the link is noticed", func() bool { return strings.Contains(c.logs.String(), "link closed") })
	_ = cl.WriteMessage(websocket.TextMessage, []byte("crash"))
	_ = cl.closed()
	eventually(t, "the end", func() bool { return strings.Contains(c.logs.String(), "session ended") })
	next := c.link(1)
	if n := <-next.notices; n.Type != wire.SessionEnded || n.Reason != "browser_crashed" || n.BindRev != 4 {
		t.Errorf("first notice %+v", n)
	}
	next.report("nothing held", func(r wire.Report) bool { return len(r.Sessions) == 0 })
	next.order(create("s1", 4, wire.Limits{}))
	if n := next.notice(wire.SessionEnded, "s1"); n.Reason != "browser_crashed" {
		t.Errorf("notice %+v", n)
	}
	next.session("s1", 5, wire.Limits{})
}

func TestLostLinkMakesItRegisterAgain(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 1, wire.Limits{KeepAlive: true})
	_ = o.conn.Close()
	select {
	case again := <-c.svc.registered:
		if again.BootID != c.reg.BootID {
			t.Error("registered as another life")
		}
	case <-time.After(patient):
		t.Fatal("did not register again")
	}
	c.connect("s1").ask("still here")
}

func TestRegistrationRefused(t *testing.T) {
	for _, tc := range []struct {
		status int
		want   string
	}{
		{http.StatusConflict, "start another"},
		{http.StatusGone, "start another"},
		{http.StatusUnauthorized, "CONTAINER_TOKEN"},
	} {
		t.Run(http.StatusText(tc.status), func(t *testing.T) {
			t.Parallel() // the last one is patient
			svc := newService(t)
			svc.answer(tc.status)
			err := agent.Run(t.Context(), config(t, svc.url))
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestRegistrationOutlastsAnAbsentService(t *testing.T) {
	svc := newService(t)
	svc.answer(http.StatusServiceUnavailable)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx, config(t, svc.url)) }()
	reg := <-svc.registered
	<-svc.registered
	svc.answer(0)
	<-svc.registered
	c := &container{t: t, svc: svc, addr: net.JoinHostPort(reg.IP, strconv.Itoa(reg.Port))}
	c.link(1).session("s1", 1, wire.Limits{})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDiscoveryIsPassedOnWithCare(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 7, wire.Limits{})
	status, body := c.get(http.MethodGet, "/sessions/s1/json/version/", http.Header{
		"Origin": {"http://evil"}, "Cookie": {"a=b"}, wire.BindRevHeader: {"7"},
	})
	if status != http.StatusOK || !strings.Contains(body, `"host":"localhost"`) ||
		strings.Contains(body, "evil") || strings.Contains(body, "Cookie") || strings.Contains(body, "canary") {
		t.Errorf("version: %d %s", status, body)
	}
	for _, tc := range []struct {
		name, method, path string
		header             http.Header
		want               int
	}{
		{"a redirect is not followed", "GET", "/sessions/s1/json/list", nil, 502},
		{"nor is an answer without end read", "GET", "/sessions/s1/json/protocol", nil, 502},
		{"a page is opened", "PUT", "/sessions/s1/json/new?http://x/", nil, 200},
		{"another binding is refused", "GET", "/sessions/s1/json/version", http.Header{wire.BindRevHeader: {"6"}}, 409},
		{"an unknown session too", "GET", "/sessions/s2/json/version", nil, 404},
		{"and an unknown endpoint", "GET", "/sessions/s1/json/nothing", nil, 404},
		{"nobody climbs out", "GET", "/sessions/s1/devtools/page/..%2fbrowser", nil, 404},
		{"POST is no method", "POST", "/sessions/s1/json/version", nil, 405},
		{"a socket wants an upgrade", "GET", "/sessions/s1/devtools/browser", nil, 400},
		{"health is for everybody", "GET", "/health", http.Header{"Authorization": {"none"}}, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if status, body := c.get(tc.method, tc.path, tc.header); status != tc.want {
				t.Errorf("%d %s, want %d", status, body, tc.want)
			}
		})
	}
}

func TestSocketsOfTargetsAreReachable(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 1, wire.Limits{})
	dial := func(path string) (*websocket.Conn, int) {
		conn, resp, err := websocket.DefaultDialer.Dial("ws://"+c.addr+"/sessions/s1/devtools/"+path,
			http.Header{"Authorization": {"Bearer " + secret}, "Origin": {"http://page"}})
		if resp == nil {
			t.Fatal(err)
		}
		return conn, resp.StatusCode
	}
	for path, want := range map[string]int{"browser/any-id": 101, "page/T1": 101, "page/T2": 404} {
		conn, status := dial(path)
		if status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
}
