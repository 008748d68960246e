//go:build linux

package main

import (
	"encoding/binary"
	"math"
)

// Opcodes of RFC 6455 §5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// frame is one as it is to be sent, good or bad.
type frame struct {
	op      byte
	rsv     byte // the three reserved bits, as a number
	more    bool // FIN is not set
	payload []byte

	size   int    // bytes for the length: 0 the shortest form, else 2 or 8 whatever the length
	length uint64 // what the header says instead of the payload's length; 0: the truth
	flip   bool   // masked where it must not be, and the other way round
}

// maskKey has four different bytes, none of them zero.
var maskKey = [4]byte{0x37, 0xfa, 0x21, 0x9d} //nolint:gochecknoglobals // a constant in all but name

// encode gives a frame's bytes.
func (f frame) encode(masked bool) []byte {
	length := uint64(len(f.payload))
	if f.length != 0 {
		length = f.length
	}
	first := f.rsv<<4 | f.op
	if !f.more {
		first |= 0x80
	}
	out := make([]byte, 0, len(f.payload)+14)
	switch {
	case f.size == 8 || f.size == 0 && length > math.MaxUint16:
		out = binary.BigEndian.AppendUint64(append(out, first, 127), length)
	case f.size == 2 || f.size == 0 && length > 125:
		out = binary.BigEndian.AppendUint16(append(out, first, 126), uint16(length))
	default:
		out = append(out, first, byte(length))
	}
	if masked == f.flip {
		return append(out, f.payload...)
	}
	out[1] |= 0x80
	out = append(out, maskKey[:]...)
	for i, b := range f.payload {
		out = append(out, b^maskKey[i%4])
	}
	return out
}

// closePayload is what a close frame says; a negative code: nothing at all.
func closePayload(code int, reason string) []byte {
	if code < 0 {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}
