//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// socket is one end of a WebSocket in a loop: the generator's or the backend's.
type socket struct {
	lab    *lab
	fd     int
	client bool // its frames are masked; those that it reads are not
	open   bool // the handshake is done
	pongs  bool // it answers pings
	gone   bool

	// the frame that is being read
	header [14]byte
	have   int
	inside bool
	op     byte
	fin    bool
	mask   [4]byte
	left   int64
	head   [128]byte // the first bytes of the message
	headN  int
	length int64 // of the message so far

	out   [][]byte // what is still to be written
	armed bool

	// message is called at the end of each message; head is valid until it returns.
	message func(s *socket, op byte, length int64, head []byte)
	// lost is called once when the socket has ended; nil: that is an error.
	lost func(s *socket)

	cast cast // backend: what it sends by itself
	id   int
	tcp  []byte // generator: handshake bytes so far
}

// frame encodes one.
func frame(op byte, payload []byte, masked bool) []byte {
	out := []byte{0x80 | op, 0}
	switch n := len(payload); {
	case n < 126:
		out[1] = byte(n)
	case n < 1<<16:
		out[1] = 126
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	default:
		out[1] = 127
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	if !masked {
		return append(out, payload...)
	}
	out[1] |= 0x80
	key := [4]byte{0x5a, 0xa5, 0x0f, 0xf0}
	out = append(out, key[:]...)
	for i, b := range payload {
		out = append(out, b^key[i%4])
	}
	return out
}

// readable reads once and takes what came.
func (s *socket) readable() {
	n, again, err := readFD(s.fd, s.lab.loop.buf)
	switch {
	case again:
	case err != nil || n == 0:
		s.end(err)
	default:
		if s.client {
			s.lab.received += int64(n)
		}
		s.take(s.lab.loop.buf[:n])
	}
}

// take reads frames.
func (s *socket) take(p []byte) {
	for len(p) > 0 && !s.gone {
		if !s.inside {
			p = p[s.takeHeader(p):]
			if !s.inside {
				return
			}
		}
		n := min(int64(len(p)), s.left)
		if s.headN < len(s.head) {
			at := s.headN
			s.headN += copy(s.head[at:], p[:n])
			if s.mask != ([4]byte{}) {
				for i := at; i < s.headN; i++ { // messages have one frame here, so the mask starts at 0
					s.head[i] ^= s.mask[i%4]
				}
			}
		}
		s.left -= n
		p = p[n:]
		if s.left > 0 {
			return
		}
		s.inside, s.have = false, 0
		if s.op == opPing || s.op == opPong { // a relay's own, to keep the connection alive
			if s.op == opPing && s.pongs {
				s.write(frame(opPong, s.head[:s.headN], s.client))
			}
			s.length, s.headN = 0, 0
			continue
		}
		if s.fin {
			length, headN := s.length, s.headN
			s.length, s.headN = 0, 0
			s.message(s, s.op, length, s.head[:headN])
		}
	}
}

// Opcodes.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// takeHeader takes bytes of a header and tells how many.
func (s *socket) takeHeader(p []byte) int {
	used := 0
	for used < len(p) {
		need := 2
		if s.have >= 2 {
			switch s.header[1] & 0x7f {
			case 126:
				need += 2
			case 127:
				need += 8
			}
			if s.header[1]&0x80 != 0 {
				need += 4
			}
		}
		n := copy(s.header[s.have:need], p[used:])
		s.have += n
		used += n
		if s.have < need || need == 2 && s.header[1]&0x7f >= 126 || need == 2 && s.header[1]&0x80 != 0 {
			continue
		}
		s.fin, s.op, s.mask = s.header[0]&0x80 != 0, s.header[0]&0x0f, [4]byte{}
		switch n := s.header[1] & 0x7f; n {
		case 126:
			s.left = int64(binary.BigEndian.Uint16(s.header[2:]))
		case 127:
			s.left = int64(binary.BigEndian.Uint64(s.header[2:]))
		default:
			s.left = int64(n)
		}
		if s.header[1]&0x80 != 0 {
			s.mask = [4]byte(s.header[need-4 : need])
		}
		s.length += s.left
		s.inside = true
		break
	}
	return used
}

// write sends bytes, which must not change any more.
func (s *socket) write(p []byte) {
	if s.gone {
		return
	}
	if len(s.out) == 0 {
		n, _, err := writeFD(s.fd, p)
		if err != nil {
			s.end(err)
			return
		}
		p = p[n:]
	}
	if len(p) > 0 {
		s.out = append(s.out, p)
		s.arm(true)
	}
}

// writable sends what is waiting.
func (s *socket) writable() {
	for len(s.out) > 0 {
		n, again, err := writeFD(s.fd, s.out[0])
		if err != nil {
			s.end(err)
			return
		}
		if s.cast.flood != nil {
			s.lab.pushed += int64(n)
		}
		if s.out[0] = s.out[0][n:]; len(s.out[0]) > 0 || again {
			return
		}
		s.out = s.out[1:]
	}
	s.out = nil
	if s.cast.flood != nil {
		s.out = append(s.out, s.cast.flood)
		return
	}
	s.arm(false)
}

func (s *socket) arm(on bool) {
	if s.armed == on {
		return
	}
	s.armed = on
	events := uint32(syscall.EPOLLIN)
	if on {
		events |= syscall.EPOLLOUT
	}
	s.lab.loop.change(s.fd, events)
}

// end closes the socket. Unless somebody expects that, it is the measurement's failure.
func (s *socket) end(err error) {
	if s.gone {
		return
	}
	s.drop()
	switch {
	case s.lost != nil:
		s.lost(s)
	case s.client:
		s.lab.fail(fmt.Errorf("session %d was cut: %w", s.id, orEOF(err)))
	}
}

func (s *socket) drop() {
	if !s.gone {
		s.gone = true
		s.lab.forget(s)
		_ = syscall.Close(s.fd)
	}
}
