package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// TestDurationsInTheLogAreTexts: a number would not say its unit.
func TestDurationsInTheLogAreTexts(t *testing.T) {
	var out bytes.Buffer
	log, err := newLogger(&out, "info", false)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("done", "took", 1500*time.Millisecond)
	var line struct{ Took string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Took != "1.5s" {
		t.Errorf("it says %s (%v)", out.Bytes(), err)
	}
}
