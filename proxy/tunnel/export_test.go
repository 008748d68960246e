package tunnel

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"runtime"
)

// AcceptKeyForTest is the answer to a handshake's key.
func AcceptKeyForTest(key string) string { return acceptKey(key) }

// ScanForTest scans a stream cut into pieces of size bytes and tells what was found.
func ScanForTest(stream []byte, masked bool, size int) (messages uint64, closed *CloseFrame, open, malformed bool) {
	s := scanner{masked: masked}
	for len(stream) > 0 {
		n := min(size, len(stream))
		s.scan(stream[:n])
		stream = stream[n:]
	}
	return s.messages, s.close, s.open(), s.malformed
}

// EncodeCloseForTest makes a close frame.
func EncodeCloseForTest(c CloseFrame, masked bool) []byte { return encodeClose(c, masked) }

// ReadAnswerForTest reads the answer to an upgrade, one byte at a time.
func ReadAnswerForTest(answer []byte, key string) ([]byte, error) {
	return readAnswer(oneByte{bytes.NewReader(answer)}, key)
}

// JudgeForTest tells what is made of a whole head, by the short way and by the long one.
func JudgeForTest(head []byte, key string) (short, long bool) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: http.MethodGet})
	if err == nil {
		defer resp.Body.Close()
	}
	long = err == nil && resp.StatusCode == http.StatusSwitchingProtocols && checkAnswer(resp, key) == ""
	return plainAnswer(head, key), long
}

type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(1, len(p))]) }

// ReadyForTest tells whether Run has begun.
func (k *Keeper) ReadyForTest() bool { return k.looks.Load() > 0 }

// LooksForTest counts how often all tunnels were looked at.
func (k *Keeper) LooksForTest() uint64 { return k.looks.Load() }

// ParksForTest tells whether idle directions are parked here.
const ParksForTest = runtime.GOOS == "linux"

// KeptForTest tells how many bytes of payload a scanner keeps of a whole stream.
func KeptForTest(stream []byte) int {
	var s scanner
	s.scan(stream)
	return len(s.control)
}

// CountAtOnceForTest has the kernel count what is left with each read of a tunnel that is made
// from now on, from the first one on.
func (k *Keeper) CountAtOnceForTest() { k.uncounted = 0 }

// BlockedForTest tells whether the client takes nothing at the moment.
func (t *Tunnel) BlockedForTest() bool { return t.toClient.sink.blocked.Load() }
