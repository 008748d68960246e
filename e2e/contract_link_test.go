package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/v1container"
)

// slowStart is how long a container of TestContractLink takes for a browser: long enough for
// a client to be there before.
const slowStart = 400 * time.Millisecond

// Registration, the link and the client's socket.
func TestContractLink(t *testing.T) {
	shot := bytes.Repeat([]byte("iVBORw0KGgo/"), 40<<20/12)
	w := startOriginal(t, map[string]string{"MIN_CONTAINERS": "2", "PLACEMENT": "spread"}, func(c *v1container.Config) {
		usual := c.Answer
		c.StartTime = slowStart
		c.Answer = func(session string, command json.RawMessage) json.RawMessage {
			switch {
			case bytes.Contains(command, []byte(bigAnswer)):
				return fmt.Appendf(nil, `{"data":"%s"}`, shot)
			case bytes.Contains(command, []byte("Silent")):
				return nil
			}
			return usual(session, command)
		}
	})

	t.Run("a task is told what the original's is", func(t *testing.T) {
		w.fleet.mu.Lock()
		defer w.fleet.mu.Unlock()
		for id, env := range w.fleet.envs {
			for name, want := range map[string]string{
				"CONTAINER_ID": id, "PROXY_ENDPOINT": w.url, "CONTAINER_MODE": "MULTI_SESSION", "MAX_SESSIONS": "4",
			} {
				if env[name] != want {
					t.Errorf("%s of %s is %q, not %q", name, id, env[name], want)
				}
			}
			if env["CONTAINER_TOKEN"] == "" {
				t.Errorf("%s has no token", id)
			}
		}
	})

	t.Run("a registration with another token is refused", func(t *testing.T) {
		for _, token := range []string{"", "dev-token", "wct1.x.y"} {
			a := call(t, http.MethodPost, w.url+"/internal/register", `{"containerId":"cnt_1795440448416_9o5ymtr","ip":"127.0.0.1","port":20000,"taskArn":"local"}`,
				"Content-Type", "application/json", "X-Container-Token", token)
			if a.status != http.StatusUnauthorized {
				t.Errorf("with %q the answer is %d: %s", token, a.status, a.body)
			}
		}
	})

	t.Run("what a client says too early is kept in order", func(t *testing.T) {
		id := w.id()
		w.wish(t, id, "", time.Hour)
		client := w.open(t, id)
		for n := range 50 {
			client.says(`{"id":` + strconv.Itoa(n) + `,"method":"Early"}`)
		}
		client.wants(`{"type":"session_ready","sessionId":"` + id + `"}`)
		for n := range 50 {
			if got := string(client.hears()); !strings.HasPrefix(got, `{"id":`+strconv.Itoa(n)+`,`) {
				t.Fatalf("answer %d is %s", n, got)
			}
		}
	})

	t.Run("messages pass byte for byte", func(t *testing.T) {
		id := w.ready(t)
		client, home := w.enter(t, id), w.home(t, id)
		for _, command := range []string{
			`{"id":1,"method":"A"}`,
			`{"id":9007199254740993,"method":"Big","params":{"n":12345678901234567890,"f":1.0e-7,"z":-0.0}}`,
			`{"method":"Order","params":{"z":1,"a":2,"m":{"y":[],"x":{}}},"id":7}`,
			`{ "id" : 8 ,	"method":"Space","params":{ } }`,
			`{"id":9,"method":"Text","params":{"s":"\u00e9\ud83d\ude00é😀\/\\ <>&"}}`,
			`{"id":10,"method":"Nested","params":{"data":{"data":"\"}}"},"type":"START_SCREENCAST"}}`,
		} {
			client.says(command)
			client.hears()
			got := seen(t, home, "CLIENT_MESSAGE", id)
			if want := fmt.Sprintf(`{"type":"CLIENT_MESSAGE","sessionId":%q,"data":%s}`, id, command); string(got.Raw) != want {
				t.Errorf("the container was told\n%s\nwanted\n%s", got.Raw, want)
			}
		}
		client.wantsEcho("9007199254740993", `{"id":9007199254740993,"method":"B"}`)
		client.says(`{"id":3,"method":"C","targetId":"t2"}`)
		client.wants(`{"id":3,"error":{"message":"Target t2 not found"}}`)
		if err := client.WriteMessage(websocket.BinaryMessage, []byte(`{"id":4,"method":"D"}`)); err != nil {
			t.Fatal(err)
		}
		if got := string(client.hears()); !strings.HasPrefix(got, `{"id":4,`) {
			t.Errorf("the answer to a binary frame is %s", got)
		}
		for _, junk := range []string{`{"id":5`, `not JSON`, `null`, ``, `{"id":5}{"id":6}`} {
			client.says(junk)
		}
		client.wantsEcho("6", `{"id":6,"method":"E"}`)
		for _, m := range home.Seen("CLIENT_MESSAGE") {
			if m.SessionID == id && !json.Valid(m.Data) || string(m.Data) == "null" {
				t.Errorf("the container was told %s", m.Raw)
			}
		}
		// Any other JSON value is a message like any other.
		client.says(`[1,2]`)
		if got := string(client.hears()); !strings.HasSuffix(got, `"echo":[1,2]}}`) {
			t.Errorf("the answer is %s", got)
		}
	})

	t.Run("a screencast is flat in both directions", func(t *testing.T) {
		id := w.ready(t)
		client, home := w.enter(t, id), w.home(t, id)
		client.says(`{"type":"START_SCREENCAST","options":{"quality":80},"n":9007199254740993}`)
		client.wants(`{"options":{"quality":80},"sessionId":"` + id + `","type":"SCREENCAST_STARTED"}`)
		client.wants(`{"type":"SCREENCAST_FRAME","data":"AAAA","metadata":{"offsetTop":0},"sessionId":"` + id + `","frameId":1}`)
		got := seen(t, home, "START_SCREENCAST", id)
		if !bytes.Contains(got.Raw, []byte(`"options":{"quality":80},"n":9007199254740993`)) || got.SessionID != id {
			t.Errorf("the container was told %s", got.Raw)
		}
		client.says(`{"type":"SEND_INPUT","sessionId":"ses_of_somebody_else","event":{"type":"mousePressed"}}`)
		if got := seen(t, home, "SEND_INPUT", id); !bytes.Contains(got.Raw, []byte(`"event":{"type":"mousePressed"}`)) || bytes.Contains(got.Raw, []byte("somebody_else")) {
			t.Errorf("the container was told %s", got.Raw)
		}
		client.says(`{"type":"STOP_SCREENCAST"}`)
		client.wants(`{"sessionId":"` + id + `","stats":{"framesSent":1},"type":"SCREENCAST_STOPPED"}`)
		client.says(`{"type":"START_SCREENCAST"}`)
		client.hears()
		client.hears()
		client.says(`{"type":"START_SCREENCAST"}`)
		if got := client.hears(); !bytes.Contains(got, []byte(`"SCREENCAST_ERROR"`)) {
			t.Errorf("this came: %s", got)
		}
	})

	t.Run("40 MiB pass", func(t *testing.T) {
		client := w.enter(t, w.ready(t))
		client.says(`{"id":1,"method":"` + bigAnswer + `"}`)
		got := client.hears()
		if len(got) != len(shot)+len(`{"id":1,"result":{"data":""}}`) || !bytes.Contains(got, shot) {
			t.Errorf("%d bytes came, not the %d of the screenshot", len(got), len(shot))
		}
		client.wantsEcho("2", `{"id":2,"method":"A"}`)
	})

	t.Run("a container speaks for its own sessions only", func(t *testing.T) {
		mine := w.ready(t)
		theirs := w.ready(t)
		for range 4 { // as many as a container takes
			if w.home(t, theirs) != w.home(t, mine) {
				break
			}
			theirs = w.ready(t)
		}
		liar := w.home(t, theirs)
		if liar == w.home(t, mine) {
			t.Fatal("all sessions are in one container")
		}
		client := w.enter(t, mine)
		client.says(`{"id":1,"method":"Silent"}`)
		seen(t, w.home(t, mine), "CLIENT_MESSAGE", mine)
		for _, text := range []string{
			`{"type":"CDP_RESPONSE","sessionId":"` + mine + `","data":{"id":1,"result":{"forged":true}}}`,
			`{"type":"SCREENCAST_FRAME","data":"forged","sessionId":"` + mine + `","frameId":1}`,
			`{"type":"SESSION_ERROR","sessionId":"` + mine + `","error":"forged"}`,
			`{"type":"SESSION_TIMEOUT","sessionId":"` + mine + `"}`,
			`{"type":"NEWS"}`, `[]`, `not JSON`,
		} {
			liar.Say([]byte(text))
		}
		w.enter(t, theirs).wantsEcho("1", `{"id":1,"method":"A"}`) // what was said before has been read by now
		client.wantsEcho("2", `{"id":2,"method":"A"}`)
		if now := w.document(t, mine)["status"]; now != "ready" {
			t.Errorf("its status is %v", now)
		}
	})

	t.Run("SESSION_TIMEOUT is told and written", func(t *testing.T) {
		id := w.ready(t)
		client, home := w.enter(t, id), w.home(t, id)
		home.Crash(id)
		notice := `{"type":"SESSION_TIMEOUT","sessionId":"` + id + `"}`
		home.Say([]byte(notice))
		client.wants(notice)
		client.wantsClose(1000, "idle")
		w.awaitStatus(t, id, "ended")
		if why := w.document(t, id)["endReason"]; why != "idle" {
			t.Errorf("its reason is %v", why)
		}
	})

	t.Run("SESSION_ERROR is told and written", func(t *testing.T) {
		id := w.ready(t)
		client, home := w.enter(t, id), w.home(t, id)
		home.Crash(id)
		home.Say([]byte(`{"type":"SESSION_ERROR","sessionId":"` + id + `","error":"Browser has been closed"}`))
		if got := client.hears(); !bytes.Contains(got, []byte("Browser has been closed")) {
			t.Errorf("this came: %s", got)
		}
		client.wantsClose(1011, "Container disconnected")
		w.awaitStatus(t, id, "ended")
	})

	t.Run("health", func(t *testing.T) {
		var health struct {
			Status              string
			Containers, Clients *int
			Uptime              *float64
		}
		a := call(t, http.MethodGet, w.url+"/health", nil)
		if err := json.Unmarshal(a.body, &health); err != nil || a.status != http.StatusOK || health.Status != "healthy" ||
			health.Containers == nil || *health.Containers < 2 || health.Clients == nil || health.Uptime == nil {
			t.Errorf("%d: %s", a.status, a.body)
		}
	})

	t.Run("tokens", func(t *testing.T) {
		id := w.ready(t)
		other := w.ready(t)
		soon := time.Now().Add(time.Hour)
		without := func(name string) map[string]any {
			c := claims(id, soon)
			delete(c, name)
			return c
		}
		good := w.token(t, id)
		parts := strings.Split(good, ".")
		for name, c := range map[string]struct {
			token  string
			status int // 0: let in
		}{
			"good":                         {good, 0},
			"expired within the tolerance": {token(t, originalHeader, originalSecret, claims(id, time.Now().Add(-10*time.Second))), 0},
			"with typ":                     {token(t, `{"alg":"dir","enc":"A256GCM","typ":"JWT"}`, originalSecret, claims(id, soon)), 0},
			"none":                         {"", 401},
			"expired":                      {token(t, originalHeader, originalSecret, claims(id, time.Now().Add(-time.Minute))), 401},
			"of another session":           {w.token(t, other), 403},
			"without exp":                  {token(t, originalHeader, originalSecret, without("exp")), 401},
			"without sessionId":            {token(t, originalHeader, originalSecret, without("sessionId")), 401},
			"of the inner secret":          {token(t, originalHeader, "canaryOriginalSecretOfTheDeployment", claims(id, soon)), 401},
			"of another secret":            {token(t, originalHeader, "another secret of 32 characters!", claims(id, soon)), 401},
			"of another algorithm":         {token(t, `{"alg":"A256KW","enc":"A256GCM"}`, originalSecret, claims(id, soon)), 401},
			"compressed":                   {token(t, `{"alg":"dir","enc":"A256GCM","zip":"DEF"}`, originalSecret, claims(id, soon)), 401},
			"critical":                     {token(t, `{"alg":"dir","enc":"A256GCM","crit":["exp"]}`, originalSecret, claims(id, soon)), 401},
			"spoilt":                       {strings.Join(append(append([]string{}, parts[:4]...), flipLast(parts[4])), "."), 401},
			"with a key":                   {strings.Join([]string{parts[0], "AAAA", parts[2], parts[3], parts[4]}, "."), 401},
			"cut":                          {strings.Join(parts[:4], "."), 401},
			"unsigned":                     {"eyJhbGciOiJub25lIn0.eyJzZXNzaW9uSWQiOiJ4In0.", 401},
		} {
			client, resp, err := w.tryOpen(t, id, c.token)
			switch {
			case c.status == 0 && err != nil:
				t.Errorf("a token that is %s is refused: %v", name, err)
			case c.status == 0:
				client.wants(`{"type":"session_ready","sessionId":"` + id + `"}`)
				_ = client.Close()
			case err == nil:
				t.Errorf("a token that is %s lets in", name)
			case resp == nil || resp.StatusCode != c.status:
				t.Errorf("a token that is %s is answered with %v, %v, not %d", name, resp, err, c.status)
			}
		}
	})

	t.Run("the death of a container", func(t *testing.T) {
		id := w.ready(t)
		client, home := w.enter(t, id), w.home(t, id)
		container := w.redis.client.HGet(t.Context(), "wallcrawler:{default}:session:"+id, "container").Val()
		if n := w.redis.client.HLen(t.Context(), "container:"+container+":sessions").Val(); n == 0 {
			t.Error("the container has noted nothing")
		}
		home.Kill()
		client.wantsClose(1011, "Container disconnected")
		w.awaitStatus(t, id, "ended")
		if why := w.document(t, id)["endReason"]; why != "container_lost" && why != "stopped_externally" {
			t.Errorf("its reason is %v", why)
		}
		eventually(t, 90*time.Second, "what it has noted is removed", func() error {
			n, err := w.redis.client.Exists(t.Context(), "container:"+container+":sessions").Result()
			if err == nil && n != 0 {
				err = errors.New("it is there")
			}
			return err
		})
	})

	t.Run("the end of the proxy", func(t *testing.T) {
		id := w.ready(t)
		client := w.enter(t, id)
		w.process.signal(t, syscall.SIGTERM)
		client.wantsClose(1001, "Proxy shutting down")
	})

	for _, fault := range w.fleet.faults() {
		t.Error(fault)
	}
}
