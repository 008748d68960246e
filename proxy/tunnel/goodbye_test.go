package tunnel_test

import (
	"bytes"
	"testing"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// Whoever goes on saying goodbye costs no memory for it.
func TestFurtherCloseFramesAreNotKept(t *testing.T) {
	closing := frame(8, true, false, append([]byte{3, 0xe8}, bytes.Repeat([]byte("x"), 123)...))
	if kept := tunnel.KeptForTest(bytes.Repeat(closing, 1000)); kept > len(closing) {
		t.Errorf("%d bytes are kept of a thousand close frames", kept)
	}
}

func TestControlFramesHaveTheShortestLength(t *testing.T) {
	for _, header := range [][]byte{{0x88, 126, 0, 2, 3, 0xe8}, {0x89, 127, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if _, _, _, malformed := tunnel.ScanForTest(header, false, 1); !malformed {
			t.Errorf("% x is let pass as a control frame", header)
		}
	}
}
