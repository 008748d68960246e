package tunnel

import (
	"crypto/rand"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// Opcodes and limits of RFC 6455 §5.
const (
	opContinuation = 0x0
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	maxHeader  = 14  // 2 + 8 for the length + 4 for the mask
	maxControl = 125 // payload of a control frame

	codeNone = 1005 // "no status received": the frame had no code
)

// scanner follows the frames in a stream of bytes, cut anywhere, by their headers alone. It
// touches no payload but that of a close frame. On a malformed frame it gives up: the
// endpoints judge that, and whoever wants to put in a frame of his own learns to keep out.
// The zero value stands before the first frame.
type scanner struct {
	masked bool // frames must be masked: they come from a client

	messages  uint64      // data messages that have ended
	close     *CloseFrame // the first close frame that has ended
	closeSize int         // its bytes, without a mask
	beyond    int         // bytes that came behind it, in the same piece
	lively    bool        // something else than pings and pongs has passed; whoever reads it takes it back

	malformed bool
	header    [maxHeader]byte
	have      int    // bytes of header seen; 0 with left == 0: between frames
	left      uint64 // bytes of payload to come
	inPayload bool
	opcode    byte
	fin       bool
	mask      [4]byte
	control   []byte // payload of a close frame
}

// scan takes the next bytes of the stream.
func (s *scanner) scan(p []byte) {
	s.lively = s.lively || s.malformed
	for len(p) > 0 && !s.malformed {
		closed := s.close != nil
		if s.inPayload {
			p = s.scanPayload(p)
		} else {
			p = s.scanHeader(p)
		}
		if !closed && s.close != nil {
			s.beyond = len(p)
		}
	}
}

// scanPayload takes bytes of a frame's payload and returns the rest.
func (s *scanner) scanPayload(p []byte) []byte {
	n := int(min(uint64(len(p)), s.left))
	if s.opcode == opClose && s.close == nil { // none but the first matters
		s.control = append(s.control, p[:n]...)
	}
	s.skip(uint64(n))
	return p[n:]
}

// skip takes n bytes of payload, of which there are as many to come, for seen.
func (s *scanner) skip(n uint64) {
	s.lively = s.lively || s.opcode != opPing && s.opcode != opPong
	if s.left -= n; s.left == 0 {
		s.endFrame()
	}
}

// scanHeader takes bytes of a frame's header and returns the rest.
func (s *scanner) scanHeader(p []byte) []byte {
	for len(p) > 0 {
		size := s.headerSize()
		n := copy(s.header[s.have:size], p)
		s.have += n
		p = p[n:]
		if s.have < size || s.headerSize() > s.have {
			continue
		}
		s.beginFrame()
		return p
	}
	return p
}

// headerSize is the length of the header as far as is known: 2 until its second byte is there.
func (s *scanner) headerSize() int {
	if s.have < 2 {
		return 2
	}
	size := 2
	switch s.header[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if s.header[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// beginFrame reads a whole header.
func (s *scanner) beginFrame() {
	first, second := s.header[0], s.header[1]
	s.fin, s.opcode = first&0x80 != 0, first&0x0f
	s.left = uint64(second & 0x7f)
	at := 2
	switch s.left {
	case 126:
		s.left = uint64(binary.BigEndian.Uint16(s.header[2:]))
		at = 4
	case 127:
		s.left = binary.BigEndian.Uint64(s.header[2:])
		at = 10
	}
	isMasked := second&0x80 != 0
	s.mask = [4]byte{}
	if isMasked {
		copy(s.mask[:], s.header[at:at+4])
	}
	isControl := s.opcode >= opClose
	switch {
	case first&0x70 != 0, // no extension was agreed on that could set these
		s.opcode > opBinary && s.opcode < opClose, s.opcode > opPong,
		isControl && (!s.fin || second&0x7f > maxControl), // in its shortest form only
		s.left > 1<<63-1,
		isMasked != s.masked:
		s.malformed = true
		return
	}
	s.have, s.inPayload = 0, true
	if s.left == 0 {
		s.skip(0)
	}
}

// endFrame is called after the last byte of a frame.
func (s *scanner) endFrame() {
	s.inPayload = false
	switch {
	case s.opcode <= opBinary && s.fin:
		s.messages++
	case s.opcode == opClose && s.close == nil:
		s.close = s.readClose()
	}
}

// readClose reads the payload of a close frame.
func (s *scanner) readClose() *CloseFrame {
	payload := s.control
	s.control = nil
	s.closeSize = 2 + len(payload)
	for i := range payload {
		payload[i] ^= s.mask[i%4]
	}
	if len(payload) < 2 {
		return &CloseFrame{Code: codeNone}
	}
	c := &CloseFrame{Code: int(binary.BigEndian.Uint16(payload))}
	if reason := payload[2:]; utf8.Valid(reason) {
		c.Reason = string(reason)
	}
	return c
}

// open tells whether another frame may be put in here: the stream stands between two frames,
// was well formed so far, and has not been closed.
func (s *scanner) open() bool {
	return !s.malformed && !s.inPayload && s.have == 0 && s.close == nil
}

// ping is a frame that asks the client for a sign of life. It has no payload, so that its pong
// cannot be taken for the answer to anybody else's.
var ping = [...]byte{0x80 | opPing, 0}

// encodeClose makes a close frame, masked if it goes to a server.
func encodeClose(c CloseFrame, masked bool) []byte {
	reason := strings.ToValidUTF8(c.Reason, "")
	if len(reason) > maxControl-2 {
		reason = strings.ToValidUTF8(reason[:maxControl-2], "")
	}
	payload := binary.BigEndian.AppendUint16(nil, uint16(c.Code))
	payload = append(payload, reason...)
	frame := []byte{0x80 | opClose, byte(len(payload))}
	if !masked {
		return append(frame, payload...)
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // never fails
	frame[1] |= 0x80
	frame = append(frame, mask[:]...)
	for i, b := range payload {
		frame = append(frame, b^mask[i%4])
	}
	return frame
}
