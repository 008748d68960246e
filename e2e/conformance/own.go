//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
)

// check is one line of the report: a case in one direction, or something else that is judged.
type check struct {
	group string
	id    string // of the case, and after a slash its direction
	title string
	run   func(*session) error
}

// checks are all of them, group by group.
func checks() (all []check) {
	both := func(g group) {
		for _, c := range g.cases {
			for _, d := range []direction{toBrowser, toClient} {
				all = append(all, check{g.id, c.id + "/" + string(d), c.title, func(s *session) error { return c.check(s, d) }})
			}
		}
	}
	for _, g := range groups() {
		both(g)
	}
	for i, offer := range offers() {
		all = append(all, check{"12", fmt.Sprintf("12.%d", i+1), "compression is not agreed on: " + offer, func(s *session) error { return refuseExtension(s, offer) }})
	}
	for _, g := range []group{{"14", "beyond Autobahn", beyond()}} {
		both(g)
	}
	for i, e := range abruptEnds() {
		for _, d := range []direction{toBrowser, toClient} {
			all = append(all, check{"15", fmt.Sprintf("15.%d/%s", i+1, d), e.title, func(s *session) error { return e.check(s, d) }})
		}
	}
	return all
}

// titles are those of the groups.
func titles() map[string]string {
	all := map[string]string{"12": "compression, refused (Autobahn 12 and 13)", "14": "beyond Autobahn: masks and lengths", "15": "connections that end without a word"}
	for _, g := range groups() {
		all[g.id] = g.title
	}
	return all
}

// offers are the parameters of permessage-deflate that clients offer.
func offers() []string {
	return []string{
		"permessage-deflate",
		"permessage-deflate; client_max_window_bits",
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover",
		"permessage-deflate; client_max_window_bits=9; server_max_window_bits=9",
		"permessage-deflate; client_max_window_bits=15; server_max_window_bits=15",
		"permessage-deflate; server_no_context_takeover; server_max_window_bits=9, permessage-deflate",
		"x-webkit-deflate-frame, permessage-deflate; client_max_window_bits=8",
	}
}

// refuseExtension offers an extension: neither does the container hear of it nor does the client
// get an answer to it, and a frame that makes use of it all the same comes to a bad end there.
func refuseExtension(s *session, offer string) error {
	client, answered, backend, err := s.upgrade("Sec-WebSocket-Extensions: " + offer + "\r\n")
	if err != nil {
		return err
	}
	if got := answered["Sec-Websocket-Extensions"]; got != nil {
		err = fmt.Errorf("the answer agrees on %q", got)
	}
	if got := backend.request.Header["Sec-Websocket-Extensions"]; got != nil {
		err = errors.Join(err, fmt.Errorf("the container was offered %q", got))
	}
	if err = errors.Join(err, client.Close(), backend.conn.Close()); err != nil {
		return err
	}
	compressed := testCase{frames: list(frame{op: opText, rsv: 4, payload: []byte("\xf2\x48\xcd\xc9\xc9\x07\x00")}), want: fails(codeProtocol, 0, 0)}
	return errors.Join(compressed.check(s, toBrowser), compressed.check(s, toClient))
}

// beyond are cases of framing that Autobahn has none of.
func beyond() []testCase {
	hello := text("hello")
	wrong, two, eight, eightOfTwo := hello, hello, hello, frame{op: opBinary, payload: filler(300), size: 8}
	wrong.flip, two.size, eight.size = true, 2, 8
	return []testCase{
		{id: "14.1", title: "a mask where none may be, none where one must be", frames: list(hello, wrong), want: fails(codeProtocol, 1, 0)},
		{id: "14.2", title: "a length in two bytes that has room in one", frames: list(two), want: fails(codeProtocol, 0, 0)},
		{id: "14.3", title: "a length in eight bytes that has room in one", frames: list(eight), want: fails(codeProtocol, 0, 0)},
		{id: "14.4", title: "a length in eight bytes that has room in two", frames: list(eightOfTwo), want: fails(codeProtocol, 0, 0)},
		{id: "14.5", title: "a length with the highest bit", frames: list(frame{op: opBinary, size: 8, length: 1<<63 | 5, payload: []byte("hello")}), want: fails(codeProtocol, 0, 0)},
		{id: "14.6", title: "a length that no memory holds, told at its end", frames: list(hello, frame{op: opBinary, size: 8, length: 1<<64 - 1, payload: []byte("hello")}), want: fails(codeProtocol, 1, 0)},
	}
}

// abruptEnd is a stream that ends without a close frame.
type abruptEnd struct {
	title string
	reset bool
	sent  []frame
	cut   int  // bytes of the last frame that are not sent
	told  bool // the other side gets a close frame instead: its stream stands between two frames
}

func abruptEnds() []abruptEnd {
	hello := text("hello")
	return []abruptEnd{
		{title: "the end of the stream between two frames", sent: list(hello), told: true},
		{title: "a reset between two frames", reset: true, sent: list(hello), told: true},
		{title: "the end of the stream between two fragments", sent: list(first("hel")), told: true},
		{title: "the end of the stream within a frame", sent: list(hello, hello), cut: 2},
		{title: "the end of the stream within a header", sent: list(hello, frame{op: opBinary, payload: filler(300)}), cut: 301},
		{title: "a reset within a frame", reset: true, sent: list(frame{op: opBinary, payload: filler(70000)}), cut: 60000},
		{title: "the end of the stream after a frame that is none", sent: list(frame{op: 3, payload: []byte("hello")})},
	}
}

// check ends one side, and looks at what the other one gets.
func (e abruptEnd) check(s *session, d direction) error {
	p, err := s.join()
	if err != nil {
		return err
	}
	defer p.close()
	from, to, farewell := p.client, p.backend, closePayload(1001, "client gone")
	if d == toClient {
		from, to, farewell = to, from, closePayload(1011, "container_lost")
	}
	p.read(to, nil)
	stream := joined(testCase{frames: e.sent, cut: e.cut}.stream(from.client))
	if err := p.write(from, stream); err != nil {
		return err
	}
	if err := p.await("what was sent arrives", func() bool { return len(to.got) == len(stream) }); err != nil {
		return err
	}
	if e.reset {
		err = from.conn.(*net.TCPConn).SetLinger(0)
	}
	if err := errors.Join(err, from.conn.Close()); err != nil {
		return err
	}
	if err := p.await("the other side is told", func() bool { return to.ended }); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := to.got[len(stream):]
	if !from.client { // what a server sends is not masked, and a client's mask is anybody's guess
		if want := (frame{op: opClose, payload: farewell}).encode(false); e.told && !bytes.Equal(rest, want) {
			return fmt.Errorf("the client was told %x, not %x", rest, want)
		}
	} else if e.told {
		judge := endpoint{server: true}
		judge.take(rest)
		if judge.verdict != closes(1001, 0, 0) || !bytes.Equal(judge.control, farewell) {
			return fmt.Errorf("the container was told %x: %+v %q", rest, judge.verdict, judge.control)
		}
	}
	if !e.told && len(rest) > 0 {
		return fmt.Errorf("bytes were put into a stream that is not between two frames: %x", rest)
	}
	if to.err != nil {
		return fmt.Errorf("the other side's stream was cut: %w", to.err)
	}
	return nil
}
