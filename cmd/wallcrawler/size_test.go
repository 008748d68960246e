package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNoGRPC: it would make the program larger by half, and nothing here speaks it.
func TestNoGRPC(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "go.opentelemetry.io/otel/exporters/otlp/otlptrace") {
		t.Error("this does not find what the program is made of")
	}
	if strings.Contains(string(out), "google.golang.org/grpc") {
		t.Error("the program imports gRPC: `go mod why google.golang.org/grpc` says by which way")
	}
}
