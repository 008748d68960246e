//go:build linux

package main

import (
	"encoding/binary"
)

// Codes that an endpoint fails a connection with, RFC 6455 §7.4.1.
const (
	codeProtocol = 1002
	codeInvalid  = 1007 // text that is not UTF-8
	codeNone     = 1005 // stands for a close frame without a code
)

// verdict is what a strict endpoint has made of a stream.
type verdict struct {
	messages int  // that were complete, and are sent back
	pongs    int  // sent in answer to pings
	code     int  // of the close frame that it has sent; 0: it is still open
	failed   bool // it has failed the connection; else the other side has closed
}

// endpoint is one end of a WebSocket that forgives nothing: it sends messages back, answers pings
// and close frames, and fails the connection at the first byte that RFC 6455 does not allow.
type endpoint struct {
	server  bool // what comes in is masked, what goes out is not
	verdict verdict

	header  []byte // of the frame that is coming in
	inside  bool
	op      byte
	fin     bool
	mask    [4]byte
	left    uint64
	at      int    // bytes of its payload so far
	control []byte // payload of a control frame

	message []byte // of the message that is coming in
	kind    byte   // its opcode; 0: none is under way
	text    utf8State
}

// take takes bytes and gives those to send back. Once it has a code it takes no more.
func (e *endpoint) take(p []byte) (out []byte) {
	for len(p) > 0 && e.verdict.code == 0 {
		if !e.inside {
			e.header, p = append(e.header, p[0]), p[1:]
			out = append(out, e.takeHeader()...)
			continue
		}
		n := min(uint64(len(p)), e.left)
		out = append(out, e.takePayload(p[:n])...)
		p = p[n:]
	}
	return out
}

// takeHeader looks at the header so far.
func (e *endpoint) takeHeader() []byte {
	h := e.header
	switch {
	case h[0]&0x70 != 0: // no extension was agreed on
		return e.fail(codeProtocol)
	case h[0]&0x0f > opBinary && h[0]&0x0f < opClose, h[0]&0x0f > opPong:
		return e.fail(codeProtocol)
	case len(h) < 2:
		return nil
	}
	e.op, e.fin, e.left = h[0]&0x0f, h[0]&0x80 != 0, uint64(h[1]&0x7f)
	isControl, isMasked := e.op >= opClose, h[1]&0x80 != 0
	switch {
	case isMasked != e.server, isControl && (!e.fin || e.left > 125):
		return e.fail(codeProtocol)
	case e.op == opContinuation && e.kind == 0, (e.op == opText || e.op == opBinary) && e.kind != 0:
		return e.fail(codeProtocol)
	}
	size := 2
	switch e.left {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	if len(h) < size {
		return nil
	}
	switch size {
	case 4:
		if e.left = uint64(binary.BigEndian.Uint16(h[2:])); e.left < 126 {
			return e.fail(codeProtocol) // §5.2: the minimal number of bytes must be used
		}
	case 10:
		if e.left = binary.BigEndian.Uint64(h[2:]); e.left < 1<<16 || e.left >= 1<<63 {
			return e.fail(codeProtocol)
		}
	}
	if isMasked {
		if size += 4; len(h) < size {
			return nil
		}
		e.mask = [4]byte(h[size-4:])
	}
	e.inside, e.at, e.header, e.control = true, 0, e.header[:0], e.control[:0]
	if e.op == opText || e.op == opBinary {
		e.kind, e.message, e.text = e.op, e.message[:0], utf8State{}
	}
	if e.left == 0 {
		return e.endFrame()
	}
	return nil
}

func (e *endpoint) takePayload(p []byte) []byte {
	into := &e.message
	if e.op >= opClose {
		into = &e.control
	}
	from := len(*into)
	*into = append(*into, p...)
	fresh := (*into)[from:]
	if e.server {
		for i := range fresh {
			fresh[i] ^= e.mask[(e.at+i)%4]
		}
	}
	e.at += len(p)
	e.left -= uint64(len(p))
	if e.op < opClose && e.kind == opText && !e.text.take(fresh) {
		return e.fail(codeInvalid)
	}
	if e.left == 0 {
		return e.endFrame()
	}
	return nil
}

func (e *endpoint) endFrame() []byte {
	e.inside = false
	switch e.op {
	case opClose:
		return e.answerClose(e.control)
	case opPing:
		e.verdict.pongs++
		return e.send(opPong, e.control)
	case opPong:
		return nil
	}
	if !e.fin {
		return nil
	}
	if e.kind == opText && e.text.need > 0 {
		return e.fail(codeInvalid) // it ends within a character
	}
	e.verdict.messages++
	out := e.send(e.kind, e.message)
	e.kind = 0
	return out
}

func (e *endpoint) answerClose(payload []byte) []byte {
	switch {
	case len(payload) == 0:
		e.verdict.code = codeNone
		return e.send(opClose, nil)
	case len(payload) == 1:
		return e.fail(codeProtocol)
	}
	code, reason := int(binary.BigEndian.Uint16(payload)), utf8State{}
	if !mayBeSent(code) {
		return e.fail(codeProtocol)
	}
	if !reason.take(payload[2:]) || reason.need > 0 {
		return e.fail(codeInvalid)
	}
	e.verdict.code = code
	return e.send(opClose, payload[:2])
}

// mayBeSent tells whether a close frame may have the code: those of §7.4.1 and of IANA's list but
// the ones that stand for something that was not sent, and those that are left to others.
func mayBeSent(code int) bool {
	switch {
	case code == 1004, code == 1005, code == 1006:
		return false
	case code >= 1000 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}

func (e *endpoint) fail(code int) []byte {
	e.verdict.code, e.verdict.failed = code, true
	return e.send(opClose, closePayload(code, ""))
}

func (e *endpoint) send(op byte, payload []byte) []byte {
	return frame{op: op, payload: payload}.encode(!e.server)
}

// utf8State is where a text stands. The zero value is between two characters.
type utf8State struct {
	need   int  // bytes that must follow
	lo, hi byte // what the next of them may be
}

// take tells whether the text may still become UTF-8, RFC 3629 §4.
func (u *utf8State) take(p []byte) bool {
	for _, b := range p {
		if u.need > 0 {
			if b < u.lo || b > u.hi {
				return false
			}
			u.need--
			u.lo, u.hi = 0x80, 0xbf
			continue
		}
		u.lo, u.hi = 0x80, 0xbf
		switch {
		case b < 0x80:
		case b >= 0xc2 && b <= 0xdf:
			u.need = 1
		case b >= 0xe0 && b <= 0xef:
			u.need = 2
			switch b {
			case 0xe0:
				u.lo = 0xa0
			case 0xed:
				u.hi = 0x9f
			}
		case b >= 0xf0 && b <= 0xf4:
			u.need = 3
			switch b {
			case 0xf0:
				u.lo = 0x90
			case 0xf4:
				u.hi = 0x8f
			}
		default:
			return false
		}
	}
	return true
}
