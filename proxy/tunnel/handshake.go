package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it; nothing rests on its strength
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxHead          = 16 << 10 // of the answer to an upgrade
	maxEarly         = 4 << 10  // of what is read together with it
	maxBody          = 4 << 10  // of a refusal
	handshakeTimeout = 10 * time.Second
	acceptGUID       = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// HandshakeError is an answer to Dial other than a good 101.
type HandshakeError struct {
	Status     int           // 101: the server switched, but not to what was asked for
	Reason     string        // with 101: what is wrong with it
	Body       []byte        // the first 4 KiB of a refusal's body
	RetryAfter time.Duration // what a refusal asks for; zero: nothing
}

// Error tells the status, never the body.
func (e *HandshakeError) Error() string {
	if e.Reason != "" {
		return "websocket handshake: " + e.Reason
	}
	return fmt.Sprintf("websocket handshake refused with status %d", e.Status)
}

// CheckUpgrade tells whether r asks for a WebSocket: GET by HTTP/1.1 without a body, with the
// headers of RFC 6455 §4.2.1. The key must be there once; it may be malformed, since go-rod
// sends such a one.
func CheckUpgrade(r *http.Request) error {
	switch {
	case r.Method != http.MethodGet:
		return fmt.Errorf("a websocket upgrade is a GET, not a %s", r.Method)
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return fmt.Errorf("a websocket upgrade needs HTTP/1.1, not %s", r.Proto)
	case !hasToken(r.Header, "Connection", "upgrade"):
		return errors.New("the header Connection does not say Upgrade")
	case !isWebSocket(r.Header):
		return errors.New("the header Upgrade does not say websocket")
	case r.ContentLength != 0 || len(r.TransferEncoding) != 0:
		return errors.New("a websocket upgrade has no body")
	}
	version, key := r.Header["Sec-Websocket-Version"], r.Header["Sec-Websocket-Key"]
	switch {
	case len(version) != 1 || version[0] != "13":
		return errors.New("the header Sec-WebSocket-Version must be 13, once")
	case len(key) != 1 || key[0] == "" || len(key[0]) > 128:
		return errors.New("the header Sec-WebSocket-Key must be there, once")
	}
	return nil
}

// Dial connects to addr through d and makes a client's handshake for path, with the headers
// given. Host is addr unless header has one; an Origin is never sent, an extension never
// offered. An answer that is not a good 101 is a *HandshakeError. ctx bounds the dial and the
// handshake, by its end and by its deadline, and nothing after that; a hung server costs ten
// seconds at most.
func Dial(ctx context.Context, d DialFunc, addr, path string, header http.Header) (Peer, error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	request, err := encodeRequest(addr, path, key, header)
	if err != nil {
		return Peer{}, err
	}
	until := time.Now().Add(handshakeTimeout)
	if at, ok := ctx.Deadline(); ok && at.Before(until) {
		until = at
	}
	conn, err := d(Until(ctx, until), "tcp", addr)
	if err != nil {
		return Peer{}, fmt.Errorf("dialling %s: %w", addr, err)
	}
	early, err := bounded(ctx, conn, until, func() ([]byte, error) { return handshake(conn, request, key) })
	if err != nil {
		_ = conn.Close()
		return Peer{}, fmt.Errorf("upgrading %s: %w", addr, err)
	}
	return Peer{Conn: conn, Early: early}, nil
}

// bounded has a handshake fail at the end of ctx, or when its time is up.
func bounded(ctx context.Context, conn net.Conn, until time.Time, shake func() ([]byte, error)) (early []byte, err error) {
	if err := conn.SetDeadline(until); err != nil {
		return nil, err
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		defer func() {
			if !stop() && err == nil { // the deadline may strike at any moment now
				err = ctx.Err()
			}
		}()
	}
	early, err = shake()
	switch cause := ctx.Err(); {
	case err == nil:
		err = conn.SetDeadline(time.Time{})
	case cause != nil:
		err = cause
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = context.DeadlineExceeded
	}
	return early, err
}

// Until gives a context a deadline that is there to be asked for, for Dial and a DialFunc: nothing
// happens when it has passed, and it costs no timer. Nothing but those should get the context.
func Until(ctx context.Context, deadline time.Time) context.Context {
	return untilContext{ctx, deadline}
}

type untilContext struct {
	context.Context //nolint:containedctx // it is one
	deadline        time.Time
}

// Deadline implements context.Context.
func (c untilContext) Deadline() (time.Time, bool) { return c.deadline, true }

// encodeRequest makes the bytes of a client's upgrade request.
func encodeRequest(addr, path, key string, header http.Header) ([]byte, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("upgrading %s: %q is no path for a request", addr, path)
	}
	host := header.Get("Host")
	if host == "" {
		host = addr
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("upgrading %s: %q is no host", addr, host)
	}
	b := bytes.NewBuffer(make([]byte, 0, 512))
	for _, text := range [...]string{"GET ", path, " HTTP/1.1\r\nHost: ", host, "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ", key, "\r\n"} {
		b.WriteString(text)
	}
	if err := header.WriteSubset(b, notForwarded); err != nil {
		return nil, fmt.Errorf("encoding the upgrade of %s: %w", addr, err)
	}
	b.WriteString("\r\n")
	return b.Bytes(), nil
}

// notForwarded are headers that are ours to say, or not to say.
var notForwarded = map[string]bool{ //nolint:gochecknoglobals // a constant
	"Host": true, "Connection": true, "Upgrade": true, "Origin": true,
	"Content-Length": true, "Transfer-Encoding": true,
	"Sec-Websocket-Version": true, "Sec-Websocket-Key": true,
	"Sec-Websocket-Extensions": true, "Sec-Websocket-Protocol": true,
}

// handshake sends the request and reads the answer.
func handshake(conn net.Conn, request []byte, key string) (early []byte, err error) {
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	return readAnswer(conn, key)
}

// readAnswer reads the answer to an upgrade that was asked for with key, and returns what was
// read beyond it.
func readAnswer(r io.Reader, key string) (early []byte, err error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	head, early, err := readHead(r, buf)
	if err != nil {
		return nil, err
	}
	if plainAnswer(head, key) {
		return early, nil
	}
	rest := io.MultiReader(bytes.NewReader(head), bytes.NewReader(early), r)
	resp, err := http.ReadResponse(bufio.NewReader(rest), &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // what came of it will do
		return nil, &HandshakeError{
			Status:     resp.StatusCode,
			Body:       body,
			RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
		}
	}
	if reason := checkAnswer(resp, key); reason != "" {
		return nil, &HandshakeError{Status: resp.StatusCode, Reason: reason}
	}
	return early, nil
}

// readHead reads up to the empty line that ends a head, into buf, and returns what came with it.
func readHead(r io.Reader, buf *buffer) (head, early []byte, err error) {
	for have := 0; have <= maxHead; {
		n, err := r.Read(buf[have : maxHead+maxEarly])
		from := max(0, have-3)
		have += n
		if at := bytes.Index(buf[from:have], []byte("\r\n\r\n")); at >= 0 {
			end := from + at + 4
			if end > maxHead {
				break
			}
			return buf[:end:end], bytes.Clone(buf[end:have]), nil
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, fmt.Errorf("reading the answer: %w", err)
		}
	}
	return nil, nil, fmt.Errorf("reading the answer: its head is longer than %d bytes", maxHead)
}

// checkAnswer tells what is wrong with a 101; empty: nothing.
func checkAnswer(resp *http.Response, key string) string {
	accept := resp.Header["Sec-Websocket-Accept"]
	switch {
	case resp.ProtoMajor != 1 || resp.ProtoMinor != 1:
		return "the answer is not HTTP/1.1"
	case !hasToken(resp.Header, "Connection", "upgrade"), !isWebSocket(resp.Header):
		return "the answer upgrades to something else than a websocket"
	case len(accept) != 1 || accept[0] != acceptKey(key):
		return "the answer belongs to another request"
	case resp.Header["Sec-Websocket-Extensions"] != nil:
		return "the answer turns on an extension that was not asked for"
	case resp.Header["Sec-Websocket-Protocol"] != nil:
		return "the answer picks a protocol that was not asked for"
	case announcesBody(resp.Header) || len(resp.TransferEncoding) != 0:
		return "the answer has a body"
	}
	return ""
}

// announcesBody tells whether a length is given. For net/http a 101 never has one.
func announcesBody(h http.Header) bool {
	return slices.ContainsFunc(h["Content-Length"], func(value string) bool { return value != "0" })
}

// Accept takes the connection over from the server and answers r, which CheckUpgrade has
// found good, with 101 and the headers given. Bytes that the client sent early are kept in
// the peer. With an error, the connection is as good as closed and nothing more can be said.
func Accept(w http.ResponseWriter, r *http.Request, header http.Header) (Peer, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return Peer{}, fmt.Errorf("taking over the connection: %w", err)
	}
	fail := func(err error) (Peer, error) {
		_ = conn.Close()
		return Peer{}, fmt.Errorf("accepting the upgrade: %w", err)
	}
	var early []byte
	if n := buffered.Reader.Buffered(); n > 0 {
		peeked, err := buffered.Reader.Peek(n)
		if err != nil {
			return fail(err)
		}
		early = bytes.Clone(peeked)
	}
	if wrapped, ok := conn.(interface{ Bare() net.Conn }); ok { // which has nothing to say any more
		if bare := wrapped.Bare(); bare != nil {
			conn = bare
		}
	}
	b := bytes.NewBuffer(make([]byte, 0, 256))
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ")
	b.WriteString(acceptKey(r.Header.Get("Sec-Websocket-Key")))
	b.WriteString("\r\n")
	if err := header.Write(b); err != nil {
		return fail(err)
	}
	b.WriteString("\r\n")
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return fail(err)
	}
	if _, err := conn.Write(b.Bytes()); err != nil {
		return fail(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	return Peer{Conn: conn, Early: early}, nil
}

// KnowsControl tells whether a client may be sent control frames. One whose key is none (16 bytes
// in base64) was written without the RFC: go-rod, which sends "nil", takes every frame for a
// message, and a ping or a close frame brings the program down that uses it.
func KnowsControl(r *http.Request) bool {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key"))
	return err == nil && len(key) == 16
}

// acceptKey is the answer to a key (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID)) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// isWebSocket tells whether the header Upgrade says websocket, and that alone.
func isWebSocket(h http.Header) bool {
	values := h["Upgrade"]
	return len(values) == 1 && strings.EqualFold(strings.TrimSpace(values[0]), "websocket")
}

// hasToken tells whether a header that is a comma-separated list holds token.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h[name] {
		for value := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(value), token) {
				return true
			}
		}
	}
	return false
}

// retryAfter reads the seconds of a Retry-After header; a date or nonsense is zero.
func retryAfter(value string) time.Duration {
	seconds, err := strconv.Atoi(value)
	if err != nil || seconds < 0 || seconds > 3600 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
