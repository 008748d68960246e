package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/v1container"
	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestV1SessionFromWishToEnd(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	created := c.Seen("CREATE_SESSION")
	if len(created) != 1 {
		t.Fatalf("CREATE_SESSION was sent %d times", len(created))
	}
	want := `{"type":"CREATE_SESSION","sessionId":"ses_1","userId":"u","options":{"viewport":{"width":7},"big":9007199254740993}}`
	if got := string(created[0].Raw); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	client := w.greeted("ses_1")
	w.await("the attachment", func() bool { return w.session("ses_1").Attached == 1 })
	client.says(`{"id":1,"method":"Runtime.evaluate"}`)
	client.wants(`{"id":1,"result":{"echo":{"id":1,"method":"Runtime.evaluate"}}}`)
	if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_1", Reason: state.Released}); err != nil {
		t.Fatal(err)
	}
	client.closes(1000, "released")
	if got := w.awaitPhase("ses_1", state.Ended); got.Reason != state.Released {
		t.Errorf("ended as %s", got.Reason)
	}
	if c.Holds("ses_1") || len(w.container("cnt_1").Slots) != 0 {
		t.Error("the container holds it still")
	}
	if ever, atOnce := c.Opened(); ever != 1 || atOnce != 1 {
		t.Errorf("%d links, %d at once", ever, atOnce)
	}
}

func TestV1EnvelopeLeavesClientsBytesAlone(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	for _, text := range []string{
		`{"id":9007199254740993,"method":"A","params":{"z":1,"a":[ 1.0, 1e400 ,-0]}}`,
		" {\n \"method\" : \"B\",\t\"id\":2 , \"params\":{\"text\":\"</script>\\u0000é\"} } ",
		`[1,2]`, `"text"`, `7`, `{"type":"CREATE_SESSION","sessionId":"ses_other","id":3}`,
		`{"type":"CDP_RESPONSE","sessionId":"ses_other","data":{},"id":4}`, `{}`,
	} {
		before := len(c.Seen("CLIENT_MESSAGE"))
		client.says(text)
		var got v1container.Seen
		w.await("the message "+text, func() bool {
			for _, m := range c.Seen("CLIENT_MESSAGE")[before:] {
				if m.SessionID == "ses_1" {
					got = m
					return true
				}
			}
			return false
		})
		if want := `{"type":"CLIENT_MESSAGE","sessionId":"ses_1","data":` + text + `}`; string(got.Raw) != want {
			t.Errorf("got  %s\nwant %s", got.Raw, want)
		}
	}
}

func TestV1ScreencastMessagesAreFlatAndBearOurSession(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	client.says(`{"type":"START_SCREENCAST","sessionId":"ses_other","params":{"big":9007199254740993}}`)
	client.wants(`{"options":{"quality":80},"sessionId":"ses_1","type":"SCREENCAST_STARTED"}`)
	client.wants(`{"type":"SCREENCAST_FRAME","data":"AAAA","metadata":{"offsetTop":0},"sessionId":"ses_1","frameId":1}`)
	client.says(`{"type":"SEND_INPUT","event":{"type":"char","text":"Q"}}`)
	client.says(`{"type":"STOP\u005fSCREENCAST"}`)
	client.wants(`{"sessionId":"ses_1","stats":{"framesSent":1},"type":"SCREENCAST_STOPPED"}`)
	for kind, want := range map[string]string{
		"START_SCREENCAST": `{"type":"START_SCREENCAST","sessionId":"ses_1","params":{"big":9007199254740993}}`,
		"SEND_INPUT":       `{"type":"SEND_INPUT","event":{"type":"char","text":"Q"},"sessionId":"ses_1"}`,
	} {
		if seen := c.Seen(kind); len(seen) != 1 || string(seen[0].Raw) != want {
			t.Errorf("got %s, want %s", seen, want)
		}
	}
}

func TestV1NonsenseIsIgnoredAndTheSocketStays(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	for _, text := range []string{"", "{", "null", " null ", `{"id":1}x`, "\x00"} {
		client.says(text)
	}
	for _, text := range []string{"\xff", `{"id":"` + "\xc3\x28" + `"}`} {
		if err := client.WriteMessage(websocket.BinaryMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.WriteMessage(websocket.BinaryMessage, []byte(`{"id":5,"method":"A"}`)); err != nil {
		t.Fatal(err)
	}
	client.wants(`{"id":5,"result":{"echo":{"id":5,"method":"A"}}}`)
	for _, m := range c.Seen("CLIENT_MESSAGE") {
		if m.SessionID == "ses_1" && !strings.Contains(string(m.Data), `"id":5`) && !strings.Contains(string(m.Data), "keepalive") {
			t.Errorf("the container got %s", m.Raw)
		}
	}
	client.says(`{"id":"` + "\xc3\x28" + `"}`) // as text, no WebSocket may carry it
	client.closes(1007, "not UTF-8")
}

func TestV1EarlyMessagesAreKeptInOrder(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	w.wish("ses_1")
	client := w.connect("ses_1")
	const n = 100
	for i := range n {
		client.says(fmt.Sprintf(`{"id":%d,"method":"M"}`, i))
	}
	w.bind("ses_1", &container{id: "cnt_1", bootID: "boot-cnt_1"})
	client.wants(`{"type":"session_ready","sessionId":"ses_1"}`)
	for i := range n {
		client.wants(fmt.Sprintf(`{"id":%d,"result":{"echo":{"id":%d,"method":"M"}}}`, i, i))
	}
}

func TestV1EarlyBytesAreBounded(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	w.wish("ses_1")
	client := w.connect("ses_1")
	kilo := `{"id":1,"text":"` + strings.Repeat("x", 100<<10) + `"}`
	for range 11 {
		client.says(kilo)
	}
	client.closes(1013, "too much was sent before the session was ready")
}

func TestV1ARefusedSessionIsReportedAndItsClientToldInTheEnd(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1", func(c *v1container.Config) { c.MaxSessions = 1 })
	w.started("ses_1", "cnt_1")
	w.wish("ses_2")
	client := w.connect("ses_2")
	w.bind("ses_2", &container{id: "cnt_1", bootID: "boot-cnt_1"})
	w.await("the refusal", func() bool { return w.session("ses_2").Refused == "Container at capacity" })
	if _, err := w.store.End(t.Context(), w.leader, state.End{
		Session: "ses_2", BindRev: w.session("ses_2").BindRev, Reason: state.Failed, Message: "Container at capacity", Confirmed: true,
	}); err != nil {
		t.Fatal(err)
	}
	client.wants(`{"type":"SESSION_ERROR","sessionId":"ses_2","error":"Container at capacity"}`)
	client.closes(1011, "Container disconnected")
}

func TestV1AContainerSpeaksOnlyForItsOwnSessions(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	evil := w.v1("cnt_2")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	evil.Say([]byte(`{"type":"CDP_RESPONSE","sessionId":"ses_1","data":{"id":1,"result":"forged"}}`))
	evil.Say([]byte(`{"type":"SESSION_TIMEOUT","sessionId":"ses_1"}`))
	evil.Say([]byte(`{"type":"SESSION_ERROR","sessionId":"ses_1","error":"x"}`))
	evil.Say([]byte(`{"type":"SESSION_READY","sessionId":"ses_1"}`))
	evil.Say([]byte(`not JSON`))
	w.await("the forged READY to be answered", func() bool { return len(evil.Seen("DESTROY_SESSION")) > 0 })
	client.says(`{"id":1,"method":"A"}`)
	client.wants(`{"id":1,"result":{"echo":{"id":1,"method":"A"}}}`)
	if p := w.session("ses_1").Phase; p != state.Ready {
		t.Errorf("the session is %s", p)
	}
}

func TestV1AnswersGoToTheClientThatAsked(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	a, b := w.greeted("ses_1"), w.greeted("ses_1")
	a.says(`{"id":1,"method":"A"}`)
	a.wants(`{"id":1,"result":{"echo":{"id":1,"method":"A"}}}`)
	b.says(`{"id":1,"method":"B"}`)
	b.wants(`{"id":1,"result":{"echo":{"id":1,"method":"B"}}}`)
	b.says(`{"id":"x","method":"B"}`)
	b.wants(`{"id":"x","result":{"echo":{"id":"x","method":"B"}}}`)
	c.Say([]byte(`{"type":"CDP_RESPONSE","sessionId":"ses_1","data":{"id":77,"result":{}}}`)) // nobody asked
	c.Frame("ses_1", 2, "BBBB")
	for _, client := range []*client{a, b} {
		client.wants(`{"type":"SCREENCAST_FRAME","data":"BBBB","metadata":{"offsetTop":0},"sessionId":"ses_1","frameId":2}`)
	}
}

func TestV1ClientsAreToldOfTheContainersDeath(t *testing.T) {
	for name, die := range map[string]func(*v1container.Container){
		"by a reset":   (*v1container.Container).Kill,
		"by a silence": (*v1container.Container).Freeze,
	} {
		t.Run(name, func(t *testing.T) {
			w := newV1World(t)
			c := w.v1("cnt_1")
			w.started("ses_1", "cnt_1")
			client := w.greeted("ses_1")
			begun := time.Now()
			die(c)
			client.closes(1011, "Container disconnected")
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestV1AMuteContainerIsDialledAgainAndNeverTwiceAtOnce(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	c.Silence()
	w.await("another link", func() bool { ever, _ := c.Opened(); return ever >= 2 })
	client.says(`{"id":1,"method":"A"}`)
	client.wants(`{"id":1,"result":{"echo":{"id":1,"method":"A"}}}`)
	if _, atOnce := c.Opened(); atOnce != 1 {
		t.Errorf("%d links at once", atOnce)
	}
	if n := len(c.Seen("CREATE_SESSION")); n != 1 {
		t.Errorf("CREATE_SESSION was sent %d times", n)
	}
}

func TestV1AnotherOwnerAdoptsSessionsWithoutTouchingThem(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	w.await("the attachment", func() bool { return w.session("ses_1").Attached == 1 })
	w.stop()
	client.closes(1001, "Proxy shutting down")
	// Two more that the first owner has bound and not seen ready: one the container has
	// noted, one it has not.
	w.wish("ses_2")
	w.wish("ses_3")
	w.bind("ses_2", &container{id: "cnt_1", bootID: "boot-cnt_1"})
	w.bind("ses_3", &container{id: "cnt_1", bootID: "boot-cnt_1"})
	set, _ := w.notes.note("cnt_1")
	set("ses_2", "{}")
	if _, err := w.store.Register(t.Context(), state.Registration{
		ID: "cnt_1", Launch: "cnt_1", BootID: "boot-cnt_1", Protocol: 1, MaxSessions: 20,
		Claimed: state.Claim{IP: "localhost", TaskARN: "local"}, Owner: "r2",
	}); err != nil {
		t.Fatal(err)
	}
	w.replica("r2", nil, func(c *proxy.LinksConfig) { c.LostGrace = 300 * time.Millisecond })
	w.awaitPhase("ses_2", state.Ready)
	again := w.greeted("ses_1")
	again.says(`{"id":1,"method":"A"}`)
	again.wants(`{"id":1,"result":{"echo":{"id":1,"method":"A"}}}`)
	if n := len(c.Seen("CREATE_SESSION")); n != 1 {
		t.Errorf("CREATE_SESSION was sent %d times", n)
	}
	if p := w.session("ses_3").Phase; p != state.Bound {
		t.Errorf("the one that is not noted is %s", p)
	}
	if _, atOnce := c.Opened(); atOnce != 1 {
		t.Errorf("%d links at once", atOnce)
	}
}

func TestV1GraceFirstConnectAndKeepAlive(t *testing.T) {
	w := newV1World(t, func(c *proxy.LinksConfig) {
		c.DisconnectGrace, c.LostGrace, c.FirstConnect = 200*time.Millisecond, time.Hour, 200*time.Millisecond
	})
	w.v1("cnt_1")
	w.started("ses_left", "cnt_1")
	w.started("ses_cut", "cnt_1")
	w.started("ses_kept", "cnt_1", func(a *state.Admission) { a.KeepAlive = true })
	w.started("ses_alone", "cnt_1")
	w.started("ses_api", "cnt_1", func(a *state.Admission) { a.Origin = state.OriginAPI })
	left, cut, kept := w.greeted("ses_left"), w.greeted("ses_cut"), w.greeted("ses_kept")
	for _, c := range []*client{left, kept} {
		_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	}
	_ = cut.NetConn().Close()
	if got := w.awaitPhase("ses_left", state.Ended); got.Reason != state.Disconnected {
		t.Errorf("ended as %s", got.Reason)
	}
	if got := w.awaitPhase("ses_api", state.Ended); got.Reason != state.NotConnected {
		t.Errorf("ended as %s", got.Reason)
	}
	w.await("the cut client's grace", func() bool { return !w.session("ses_cut").GraceUntil.IsZero() })
	for _, id := range []string{"ses_cut", "ses_kept", "ses_alone"} {
		if p := w.session(id).Phase; p != state.Ready {
			t.Errorf("%s is %s", id, p)
		}
	}
}

func TestV1KeepaliveHoldsAttachedSessionsAndOthersSleep(t *testing.T) {
	asleep := make(chan struct{}, 10)
	w := newV1World(t, func(c *proxy.LinksConfig) {
		c.V1.Keepalive = 100 * time.Millisecond
		c.Log = slog.New(slog.NewTextHandler(told{"session asleep", asleep}, nil))
	})
	c := w.v1("cnt_1", func(c *v1container.Config) { c.Timeout = 3 * time.Second })
	w.started("ses_1", "cnt_1")
	w.started("ses_2", "cnt_1")
	client := w.greeted("ses_1")
	select {
	case <-asleep: // the one that nobody uses
	case <-time.After(patience):
		t.Fatal("no session timed out")
	}
	if s := w.session("ses_2"); s.Phase != state.Ready || len(w.container("cnt_1").Slots) != 2 {
		t.Errorf("it is %s, slots %v", s.Phase, w.container("cnt_1").Slots)
	}
	other := w.connect("ses_2")
	other.says(`{"id":1,"method":"A"}`)
	other.wants(`{"type":"session_ready","sessionId":"ses_2"}`)
	other.wants(`{"id":1,"result":{"echo":{"id":1,"method":"A"}}}`)
	if n := len(c.Seen("CREATE_SESSION")); n != 3 {
		t.Errorf("CREATE_SESSION was sent %d times, want 3", n)
	}
	if !c.Holds("ses_1") {
		t.Error("the attached one was let go")
	}
	client.says(`{"id":-1,"method":"A"}`) // a client's own -1 is answered
	client.wants(`{"id":-1,"result":{"echo":{"id":-1,"method":"A"}}}`)
}

// told is a log that is waited on for a word.
type told struct {
	word string
	to   chan<- struct{}
}

func (w told) Write(line []byte) (int, error) {
	if strings.Contains(string(line), w.word) {
		w.to <- struct{}{}
	}
	return len(line), nil
}

func TestV1ATimeoutAfterSomebodyCameEndsTheSession(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	c.Say([]byte(`{"type":"SESSION_TIMEOUT","sessionId":"ses_1"}`))
	client.wants(`{"type":"SESSION_TIMEOUT","sessionId":"ses_1"}`)
	client.closes(1000, "idle")
	if got := w.awaitPhase("ses_1", state.Ended); got.Reason != state.Idle {
		t.Errorf("ended as %s", got.Reason)
	}
}

func TestV1AnErrorOfAServingSessionIsToldAndVerified(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	c.Say([]byte(`{"type":"SESSION_ERROR","sessionId":"ses_1","error":"a hiccup"}`))
	client.wants(`{"type":"SESSION_ERROR","sessionId":"ses_1","error":"a hiccup"}`)
	client.says(`{"id":1,"method":"A"}`)
	client.wants(`{"id":1,"result":{"echo":{"id":1,"method":"A"}}}`)
	c.Crash("ses_1")
	c.Say([]byte(`{"type":"SESSION_ERROR","sessionId":"ses_1","error":"browser gone"}`))
	client.wants(`{"type":"SESSION_ERROR","sessionId":"ses_1","error":"browser gone"}`)
	client.closes(1011, "Container disconnected")
	if got := w.awaitPhase("ses_1", state.Ended); got.Reason != state.BrowserCrashed || got.Message != "browser gone" {
		t.Errorf("ended as %s: %s", got.Reason, got.Message)
	}
}

func TestV1AnErrorThatNamesNoSessionIsItsEnd(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	w.greeted("ses_1")
	c.Say([]byte(`{"type":"SESSION_ERROR","sessionId":"ses_1","error":"Session not found"}`))
	if got := w.awaitPhase("ses_1", state.Ended); got.Reason != state.BrowserCrashed {
		t.Errorf("ended as %s", got.Reason)
	}
}

func TestV1DrainIsAcknowledgedWhenNothingIsLeft(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	drained, err := w.store.Drain(t.Context(), w.leader, "cnt_1", "boot-cnt_1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_1", Reason: state.Released}); err != nil {
		t.Fatal(err)
	}
	set, erase := w.notes.note("cnt_1")
	set("ses_leftover", "{}")
	w.awaitPhase("ses_1", state.Ended)
	w.await("its notes to be looked at", func() bool { return w.notes.counts() >= 3 })
	if ack := w.container("cnt_1").DrainAck; ack != 0 {
		t.Fatalf("acknowledged %d although it has noted a session", ack)
	}
	erase("ses_leftover")
	w.await("the acknowledgement", func() bool { return w.container("cnt_1").DrainAck == drained.DrainSeq })
}

func TestV1ASlotIsFreedOnlyWhenTheContainerSaysSo(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	w.notes.fail(errors.New("the store is away"))
	if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_1", Reason: state.Released}); err != nil {
		t.Fatal(err)
	}
	w.await("the container to let go", func() bool { return !c.Holds("ses_1") })
	if p := w.session("ses_1").Phase; p != state.Ending {
		t.Errorf("the session is %s", p)
	}
	w.notes.fail(nil)
	w.awaitPhase("ses_1", state.Ended)
}

func TestV1DiscoveryIsRefusedWithAHint(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	resp, err := http.Get("http" + strings.TrimPrefix(w.url, "ws") + "ses_1/json/version/") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body [500]byte
	n, _ := resp.Body.Read(body[:])
	if resp.StatusCode == http.StatusOK || !strings.Contains(string(body[:n]), "/sessions/ses_1/ws") {
		t.Errorf("%d %s", resp.StatusCode, body[:n])
	}
}

func TestV1ClientsOfAStoppingReplicaAreTold(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	w.wish("ses_2")
	waiting := w.connect("ses_2")
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.relay.Drain(context.Background(), 0)
	}()
	client.closes(1001, "Proxy shutting down")
	waiting.closes(1001, "Proxy shutting down")
	<-done
}

func TestV1LargeAnswersPass(t *testing.T) {
	const size = 40 << 20
	w := newV1World(t, func(c *proxy.LinksConfig) { c.V1.Silence, c.V1.ProbeWait = 20*time.Second, 20*time.Second })
	asked := make(chan struct{}, 1)
	c := w.v1("cnt_1", func(c *v1container.Config) {
		c.Answer = func(string, json.RawMessage) json.RawMessage { asked <- struct{}{}; return nil }
	})
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	client.says(`{"id":1,"method":"Page.captureScreenshot"}`)
	<-asked
	big := `{"id":1,"result":{"data":"` + strings.Repeat("A", size) + `"}}`
	go c.Say([]byte(`{"type":"CDP_RESPONSE","sessionId":"ses_1","data":` + big + `}`))
	if got := client.hears(); got != big {
		t.Errorf("got %d bytes: %.60s", len(got), got)
	}
}
