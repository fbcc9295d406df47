package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"waxseal/images"
)

func TestWrongCommandLinesAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"nothing"},
		{"build"},
		{"build", "--out"},
		{"factory", "unit"},
		{"tamper", "a", "b"},
		{"run", "a"},
		{"learn", "a", "--evidence", "x"},
		{"predict"},
		{"predict", "a", "--more"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%q: exit code %d, %q; want 2 and a word about it", args, code, &stderr)
		}
	}
}

func TestMissingFilesAreErrorsThatNameThem(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, args := range [][]string{
		{"predict", missing},
		{"tamper", missing, "kernel", missing + "2"},
		{"learn", missing, "--evidence", missing, "--trust", missing},
		{"run", missing, "--tpm", missing, "--direct"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), missing) {
			t.Errorf("%q: exit code %d, %q; want 1 and the name of the missing file", args, code, &stderr)
		}
	}
}

func TestHelpNamesEveryTampering(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"tamper", "--help"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	for _, c := range images.Tamperings {
		if !strings.Contains(stdout.String(), c.Does) {
			t.Errorf("help does not say that %s means: %s", c.Name, c.Does)
		}
	}
}
