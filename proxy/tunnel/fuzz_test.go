package tunnel_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

func parse(t *testing.T, request string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// FuzzFrames checks that what the scanner learns does not depend on where the stream is cut,
// and that a frame of ours put in where it says so is found again.
func FuzzFrames(f *testing.F) {
	f.Add(conversation(true), true, 1)
	f.Add(conversation(false), false, 3)
	f.Add([]byte{0x81}, false, 1)
	f.Add([]byte{0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0, 1}, false, 2)
	f.Add([]byte{0x88, 0x80, 1, 2, 3, 4}, true, 1)
	f.Add([]byte{0x88, 1, 3, 0x81, 0}, false, 1)
	f.Add(frame(1, true, true, make([]byte, 70000)), true, 4096)
	f.Fuzz(func(t *testing.T, stream []byte, masked bool, size int) {
		size = max(1, size)
		messages, closed, open, malformed := tunnel.ScanForTest(stream, masked, len(stream)+1)
		m, c, o, bad := tunnel.ScanForTest(stream, masked, size)
		if m != messages || !cmp.Equal(c, closed) || o != open || bad != malformed {
			t.Fatalf("cut by %d: %d %v %v %v, whole: %d %v %v %v", size, m, c, o, bad, messages, closed, open, malformed)
		}
		if !open {
			return
		}
		put := tunnel.CloseFrame{Code: 1012, Reason: "draining"}
		_, closed, _, malformed = tunnel.ScanForTest(append(stream, tunnel.EncodeCloseForTest(put, masked)...), masked, size)
		if malformed || !cmp.Equal(closed, &put) {
			t.Fatalf("the frame put in was read as %v, malformed %v", closed, malformed)
		}
	})
}

// FuzzHandshake checks that no answer is taken for a good one but by its proof, and that none
// brings the reader down.
func FuzzHandshake(f *testing.F) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	f.Add([]byte(good(key)+"\r\nrest"), key)
	f.Add([]byte(good("other")+"\r\n"), key)
	f.Add([]byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n{}"), key)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), key)
	f.Add([]byte("HTTP/1.1 101 \r\n : \r\n\r\n"), key)
	f.Add([]byte("\r\n\r\n"), key)
	f.Add([]byte(plain(key)), key)
	f.Add([]byte(plain(key)[:40]+"Transfer-Encoding: chunked\r\n"+plain(key)[40:]), key)
	f.Fuzz(func(t *testing.T, answer []byte, key string) {
		if short, long := tunnel.JudgeForTest(answer, key); short && !long {
			t.Fatalf("%q is good by the short way only", answer)
		}
		early, err := tunnel.ReadAnswerForTest(answer, key)
		if err != nil {
			return
		}
		if len(early) != 0 {
			t.Fatalf("%d bytes were read too many", len(early))
		}
		if !strings.Contains(string(answer), tunnel.AcceptKeyForTest(key)) {
			t.Fatalf("%q was taken for an answer to %q", answer, key)
		}
	})
}

// plain is a good answer that the short way knows.
func plain(key string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + tunnel.AcceptKeyForTest(key) + "\r\nDate: Thu, 26 Nov 2026 09:00:00 GMT\r\n\r\n"
}

func TestThePlainAnswerIsJudgedTheShortWay(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	if short, long := tunnel.JudgeForTest([]byte(plain(key)), key); !short || !long {
		t.Errorf("the short way says %v, the long one %v", short, long)
	}
	for name, c := range map[string]string{
		"another accept":   strings.Replace(plain(key), "Accept: ", "Accept: x", 1),
		"two accepts":      strings.Replace(plain(key), "Date: ", "Sec-WebSocket-Accept: x\r\nDate: ", 1),
		"a length":         strings.Replace(plain(key), "Date: ", "Content-Length: 5\r\nDate: ", 1),
		"chunks":           strings.Replace(plain(key), "Date: ", "Transfer-Encoding: chunked\r\nDate: ", 1),
		"an extension":     strings.Replace(plain(key), "Date: ", "Sec-WebSocket-Extensions: x\r\nDate: ", 1),
		"a protocol":       strings.Replace(plain(key), "Date: ", "Sec-WebSocket-Protocol: x\r\nDate: ", 1),
		"a bare line feed": strings.Replace(plain(key), "\r\nDate", "\nDate", 1),
		"a folded line":    strings.Replace(plain(key), "Date: ", "Date: a\r\n b\r\nDate: ", 1),
		"no upgrade":       strings.Replace(plain(key), "Upgrade: websocket\r\n", "", 1),
		"no connection":    strings.Replace(plain(key), "Connection: Upgrade\r\n", "", 1),
		"a space in front": strings.Replace(plain(key), "Upgrade: websocket", "Upgrade : websocket", 1),
		"HTTP/1.0":         strings.Replace(plain(key), "HTTP/1.1", "HTTP/1.0", 1),
		"no end":           strings.TrimSuffix(plain(key), "\r\n"),
		"bytes behind it":  plain(key) + "x",
	} {
		if short, _ := tunnel.JudgeForTest([]byte(c), key); short {
			t.Errorf("%s: the short way takes it", name)
		}
	}
}

func TestCloseFramesOfOursAreAlwaysWellFormed(t *testing.T) {
	for _, reason := range []string{"", "released", strings.Repeat("x", 123), strings.Repeat("é", 100), "\xff\xfe", strings.Repeat("\xe2\x82\xac", 60)} {
		for _, masked := range []bool{false, true} {
			_, closed, _, malformed := tunnel.ScanForTest(tunnel.EncodeCloseForTest(tunnel.CloseFrame{Code: 1011, Reason: reason}, masked), masked, 1)
			if malformed || closed == nil || closed.Code != 1011 || !utf8.ValidString(closed.Reason) {
				t.Errorf("%q was read as %+v", reason, closed)
			}
			if closed != nil && utf8.ValidString(reason) && !strings.HasPrefix(reason, closed.Reason) {
				t.Errorf("%q became %q", reason, closed.Reason)
			}
		}
	}
}
