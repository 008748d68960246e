package api

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const plainUpgrade = "GET /sessions/ses_1/ws?token=a.b%2Dc HTTP/1.1\r\nHost: example.com:8080\r\nConnection: keep-alive, Upgrade\r\n" +
	"upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"X-Twice: one\r\nX-Twice: two\r\nX-Spaced:   x  y  \r\n\r\n"

// judge reads a head by the front and by net/http, and fails if they do not agree on what the
// front takes.
func judge(t *testing.T, head []byte) (taken bool) {
	t.Helper()
	got, size := readUpgrade(head)
	if got == nil {
		return false
	}
	reader := bufio.NewReader(bytes.NewReader(head))
	want, err := http.ReadRequest(reader)
	if err != nil {
		t.Fatalf("the front takes %q, net/http refuses it: %v", head, err)
	}
	if behind := len(head) - size; behind != reader.Buffered() {
		t.Errorf("%d bytes are behind the head, not %d", behind, reader.Buffered())
	}
	if got.Method != want.Method || got.Host != want.Host || got.RequestURI != want.RequestURI || got.Proto != want.Proto ||
		got.ProtoMajor != want.ProtoMajor || got.ProtoMinor != want.ProtoMinor || got.ContentLength != want.ContentLength ||
		len(want.TransferEncoding) != 0 {
		t.Errorf("the front reads %+v, net/http %+v", got, want)
	}
	if diff := cmp.Diff(want.URL, got.URL); diff != "" {
		t.Errorf("the URLs differ: %s", diff)
	}
	if diff := cmp.Diff(want.Header, got.Header); diff != "" {
		t.Errorf("the headers differ: %s", diff)
	}
	return true
}

func TestTheFrontReadsAnUpgradeAsNetHTTPDoes(t *testing.T) {
	if !judge(t, []byte(plainUpgrade)) || !judge(t, []byte(plainUpgrade+"early bytes\r\n\r\n")) {
		t.Error("the front does not take what clients send")
	}
}

func TestTheFrontLeavesTheRestToTheServer(t *testing.T) {
	end := strings.TrimSuffix(plainUpgrade, "\r\n")
	for name, head := range map[string]string{
		"half a head":             end,
		"another method":          strings.Replace(plainUpgrade, "GET", "POST", 1),
		"another path":            strings.Replace(plainUpgrade, "/sessions/", "/v1/sessions/", 1),
		"an absolute target":      strings.Replace(plainUpgrade, "/sessions/", "http://elsewhere/sessions/", 1),
		"discovery":               strings.Replace(plainUpgrade, "/ws", "/json/version", 1),
		"a fragment":              strings.Replace(plainUpgrade, "/ws", "/ws#x", 1),
		"a space in the target":   strings.Replace(plainUpgrade, "/ws", "/ws x", 1),
		"HTTP/1.0":                strings.Replace(plainUpgrade, "HTTP/1.1", "HTTP/1.0", 1),
		"no Host":                 strings.Replace(plainUpgrade, "Host:", "Hosts:", 1),
		"two Hosts":               end + "Host: elsewhere\r\n\r\n",
		"an odd Host":             strings.Replace(plainUpgrade, "example.com", "exa/mple.com", 1),
		"no Upgrade":              strings.Replace(plainUpgrade, "upgrade:", "upgraded:", 1),
		"another upgrade":         strings.Replace(plainUpgrade, "WebSocket\r", "h2c\r", 1),
		"two upgrades":            end + "Upgrade: websocket\r\n\r\n",
		"a length":                end + "Content-Length: 0\r\n\r\n",
		"chunks":                  end + "Transfer-Encoding: chunked\r\n\r\n",
		"an expectation":          end + "Expect: 100-continue\r\n\r\n",
		"a folded line":           end + "X-A: b\r\n c\r\n\r\n",
		"a space before a colon":  end + "X-A : b\r\n\r\n",
		"a bare line feed":        end + "X-A: b\nContent-Length: 4\r\n\r\n",
		"a bare carriage return":  end + "X-A: b\rc\r\n\r\n",
		"a zero byte":             end + "X-A: b\x00\r\n\r\n",
		"a line without a colon":  end + "nothing\r\n\r\n",
		"a line without a name":   end + ": x\r\n\r\n",
		"a byte beyond ASCII":     end + "X-A: \xe9\r\n\r\n",
		"an empty line before it": "\r\n" + plainUpgrade,
	} {
		if judge(t, []byte(head)) {
			t.Errorf("%s: the front takes it", name)
		}
	}
}

// FuzzFront checks that the front takes no head that net/http would refuse or read otherwise.
func FuzzFront(f *testing.F) {
	f.Add([]byte(plainUpgrade))
	f.Add([]byte(plainUpgrade + "early"))
	f.Add([]byte("GET /sessions/a/ws?token=%zz HTTP/1.1\r\nHost: [::1]:80\r\nUpgrade: websocket\r\n\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) { judge(t, head) })
}
