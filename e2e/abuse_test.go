package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// abuse is a request that is wrong, or nearly so, as bytes.
type abuse struct {
	name   string
	line   string            // instead of the usual first line; PATH stands for the usual path
	header map[string]string // instead of the usual headers; empty: left out
	more   string            // header lines after them, as they are
	after  string            // sent right behind the head
	want   []int             // any of these statuses
	comes  string            // what the browser says to what was sent behind the head; empty: not looked at
	ends   bool              // the browser ends the connection over it, and nothing else is answered
}

const smuggled = "GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n"

// What a client says before its 101 is never a request, and what is no proper upgrade gets one
// answer, in HTTP, and the end of the connection.
func TestUpgradeAbuse(t *testing.T) {
	s := startService(t, serviceOptions{})
	created := s.alice.create(t, map[string]any{"keepAlive": true})
	path := "/sessions/" + created.ID + "/ws"
	no := []int{400}
	vectors := []abuse{
		{name: "a proper upgrade", want: []int{101}},
		{name: "a key that is none", header: map[string]string{"Sec-WebSocket-Key": "nil"}, want: []int{101}},
		{name: "words in another case", header: map[string]string{"Upgrade": "WebSocket", "Connection": "keep-alive, uPGRADE"}, want: []int{101}},
		{name: "an extension, which is not taken up", more: "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", want: []int{101}},
		{name: "a frame before the 101", after: masked(1, `{"id":7,"method":"Browser.getVersion"}`), want: []int{101}, comes: `{"id":7,"result":{"protocolVersion":`},
		{name: "a request as early bytes", after: smuggled, want: []int{101}, ends: true},
		{name: "no version", header: map[string]string{"Sec-WebSocket-Version": ""}, want: []int{400, 426}},
		{name: "another version", header: map[string]string{"Sec-WebSocket-Version": "8"}, want: []int{400, 426}},
		{name: "two versions", more: "Sec-WebSocket-Version: 8\r\n", want: no},
		{name: "no key", header: map[string]string{"Sec-WebSocket-Key": ""}, want: no},
		{name: "two keys", more: "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", want: no},
		{name: "an endless key", header: map[string]string{"Sec-WebSocket-Key": strings.Repeat("A", 4096)}, want: no},
		{name: "no Upgrade", header: map[string]string{"Upgrade": "", "Connection": "close"}, want: []int{400, 426}},
		{name: "no Connection", header: map[string]string{"Connection": ""}, want: []int{400, 426}},
		{name: "an upgrade to something else", header: map[string]string{"Upgrade": "h2c"}, want: []int{400, 426}},
		{name: "an upgrade to two things", header: map[string]string{"Upgrade": "h2c, websocket"}, want: no},
		{name: "a word that contains the right one", header: map[string]string{"Upgrade": "xwebsocket"}, want: []int{400, 426}},
		{name: "a refusal, and a request behind it", header: map[string]string{"Sec-WebSocket-Version": "8"}, after: smuggled, want: []int{400, 426}},
		{name: "a token that is refused, and a request behind it", header: map[string]string{"Authorization": "Bearer x"}, after: smuggled, want: []int{401}},
		{name: "no token, and a request behind it", header: map[string]string{"Authorization": ""}, after: smuggled, want: []int{401}},
		{name: "a body of known length", more: "Content-Length: " + strconv.Itoa(len(smuggled)) + "\r\n", after: smuggled, want: no},
		{name: "a chunked body", more: "Transfer-Encoding: chunked\r\n", after: "0\r\n\r\n" + smuggled, want: no},
		{name: "both kinds of body", more: "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", after: "0\r\n\r\n" + smuggled, want: no},
		{name: "two lengths", more: "Content-Length: 0\r\nContent-Length: 41\r\n", after: smuggled, want: no},
		{name: "a negative length", more: "Content-Length: -1\r\n", want: no},
		{name: "an odd transfer coding", more: "Transfer-Encoding: xchunked\r\n", after: smuggled, want: []int{400, 501}},
		{name: "a folded header", more: "X-A: b\r\n c: d\r\n", want: []int{101}},
		{name: "a space before a colon", more: "Transfer-Encoding : chunked\r\n", want: no},
		{name: "a bare line feed in a header", more: "X-A: b\nContent-Length: 41\r\n", after: smuggled, want: no},
		{name: "a zero byte in a header", more: "X-A: b\x00c\r\n", want: no},
		{name: "a line without a colon", more: "nothing\r\n", want: no},
		{name: "POST", line: "POST PATH HTTP/1.1", want: []int{400, 405}},
		{name: "CONNECT", line: "CONNECT PATH HTTP/1.1", want: []int{400, 404, 405}},
		{name: "HTTP/1.0", line: "GET PATH HTTP/1.0", want: []int{400, 426, 505}},
		{name: "HTTP/2's preface", line: "PRI * HTTP/2.0", want: []int{400, 404, 505}},
		{name: "no such version of HTTP", line: "GET PATH HTTP/9.9", want: []int{400, 505}},
		{name: "an absolute target elsewhere", line: "GET http://169.254.169.254/latest/meta-data/ HTTP/1.1", want: []int{400, 404}},
		{name: "a way up", line: "GET /sessions/x/../" + created.ID + "/ws HTTP/1.1", want: []int{400, 401, 403, 404}},
		{name: "an encoded way up", line: "GET /sessions/" + created.ID + "/%2e%2e/%2e%2e/health HTTP/1.1", want: []int{400, 404}},
		{name: "an encoded slash", line: "GET /sessions/" + created.ID + "%2fws HTTP/1.1", want: []int{400, 401, 403, 404}},
		{name: "a session of nobody's", line: "GET /sessions/ses_other/ws HTTP/1.1", want: []int{403, 404}},
		{name: "a zero byte in the path", line: "GET /sessions/" + created.ID + "%00/ws HTTP/1.1", want: []int{400, 401, 403, 404}},
		{name: "a token in two places", line: "GET PATH?token=" + created.Token + " HTTP/1.1", want: []int{400, 401}},
		{name: "a token twice", line: "GET PATH?token=" + created.Token + "&token=x HTTP/1.1", header: map[string]string{"Authorization": ""}, want: []int{400, 401}},
		{name: "no Host", header: map[string]string{"Host": ""}, want: no},
		{name: "two Hosts", more: "Host: elsewhere\r\n", want: no},
		{name: "a header beyond every limit", more: "X-A: " + strings.Repeat("a", 1<<20) + "\r\n", want: []int{400, 431}},
	}
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			head := attack(v, path, created.Token)
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			_, _ = io.WriteString(conn, head+v.after) // refused halfway, it fails
			answer := make([]byte, 0, 1<<16)
			for {
				more := make([]byte, 4096)
				n, err := conn.Read(more)
				answer = append(answer, more[:n]...)
				if bytes.HasPrefix(answer, []byte("HTTP/1.1 101 ")) && bytes.Contains(answer, []byte("\r\n\r\n")) {
					break
				}
				if err != nil {
					if !isEnd(err) {
						t.Fatalf("after %.200q the connection goes on: %v", answer, err)
					}
					break
				}
			}
			var status int
			if _, err := fmt.Sscanf(string(answer), "HTTP/1.1 %d ", &status); err != nil {
				if _, err := fmt.Sscanf(string(answer), "HTTP/1.0 %d ", &status); err != nil {
					t.Fatalf("the answer is %.200q", answer)
				}
			}
			if !slices.Contains(v.want, status) {
				t.Errorf("the answer is %d, not one of %v: %.300s", status, v.want, answer)
			}
			if n := len(statusLine.FindAll(answer, -1)); n != 1 {
				t.Errorf("%d answers came: %.400s", n, answer)
			}
			if v.comes != "" || v.ends {
				checkEarly(t, conn, v, answer)
			}
			if bytes.Contains(bytes.ToLower(answer), []byte("sec-websocket-extensions")) {
				t.Error("an extension was accepted")
			}
			if bytes.Contains(answer, []byte(created.Token)) {
				t.Error("the answer repeats the token")
			}
		})
	}
	dialCDP(t, created.ConnectURL).alive(t)
}

// checkEarly looks at what comes of bytes that were sent early: a frame is answered by the browser,
// and what is no frame by nobody, least of all by an HTTP server.
func checkEarly(t *testing.T, conn net.Conn, v abuse, answer []byte) {
	t.Helper()
	_, said, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	for buf := make([]byte, 4096); v.ends || !bytes.Contains(said, []byte(v.comes)); {
		n, err := conn.Read(buf)
		said = append(said, buf[:n]...)
		if err == nil {
			continue
		}
		if !v.ends || !isEnd(err) {
			t.Fatalf("after %.300q came %v", said, err)
		}
		break
	}
	if v.ends && (statusLine.Match(said) || bytes.Contains(said, []byte("healthy"))) {
		t.Errorf("the early bytes were taken for a request: %.300q", said)
	}
	// One frame, which begins with its first byte: nothing stands before the browser's word.
	if v.comes != "" && (len(said) < 4 || said[0] != 0x81 || said[1]&0x80 != 0 || bytes.Index(said, []byte(v.comes)) != 4) {
		t.Errorf("the browser's answer is %.300q", said)
	}
}

// masked is a client's text frame of less than 126 bytes, with a mask of zeroes.
func masked(op byte, payload string) string {
	return string([]byte{0x80 | op, 0x80 | byte(len(payload)), 0, 0, 0, 0}) + payload
}

// statusLine begins every answer.
var statusLine = regexp.MustCompile(`HTTP/1\.[01] [0-9]{3} `)

// isEnd tells whether a connection was ended from the other side.
func isEnd(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // it comes straight from the connection
	return !ok || !timeout.Timeout()
}

// attack writes a request's head.
func attack(v abuse, path, token string) string {
	line := v.line
	if line == "" {
		line = "GET PATH HTTP/1.1"
	}
	var b strings.Builder
	b.WriteString(strings.Replace(line, "PATH", path, 1) + "\r\n")
	for _, usual := range [][2]string{
		{"Host", "127.0.0.1"}, {"Upgrade", "websocket"}, {"Connection", "Upgrade"}, {"Sec-WebSocket-Version", "13"},
		{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}, {"Authorization", "Bearer " + token},
	} {
		value := usual[1]
		if other, ok := v.header[usual[0]]; ok {
			value = other
		}
		if value != "" {
			b.WriteString(usual[0] + ": " + value + "\r\n")
		}
	}
	return b.String() + v.more + "\r\n"
}
