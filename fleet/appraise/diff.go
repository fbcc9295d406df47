package appraise

import (
	"fmt"
	"strings"
)

// Bounds of a difference that is shown.
const (
	maxLines = 200 // lines that differ
	maxLine  = 512 // bytes of one line
)

// diffLines returns the lines that only one of two texts has, with a note if
// not all are shown. escape makes each line safe to show.
func diffLines(want, got string, escape func(string) string) ([]Line, string) {
	a, b := splitLines(want), splitLines(got)
	var lines []Line
	for _, p := range align(a, b) {
		if p.a >= 0 && p.b >= 0 && a[p.a] == b[p.b] {
			continue
		}
		if p.a >= 0 {
			lines = append(lines, Line{p.a + 1, "-", clip(escape(strings.TrimSuffix(a[p.a], "\n")))})
		}
		if p.b >= 0 {
			lines = append(lines, Line{p.b + 1, "+", clip(escape(strings.TrimSuffix(b[p.b], "\n")))})
		}
	}
	if len(lines) > maxLines {
		return lines[:maxLines], fmt.Sprintf("%d more lines differ", len(lines)-maxLines)
	}
	return lines, ""
}

// splitLines splits text after each line feed, so that no element is empty.
func splitLines(text string) []string {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func clip(line string) string {
	if len(line) > maxLine {
		return strings.ToValidUTF8(line[:maxLine], "") + "…"
	}
	return line
}
