package main

import (
	"regexp"
	"strings"
	"testing"
)

// A testResult is one test as "go test -v" printed it.
type testResult struct{ name, outcome, output string }

// Lines of go test -v (cmd/go, "Test packages"; testing.T's own prefixes).
var (
	endOfTest   = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)
	turnOfTest  = regexp.MustCompile(`^=== (?:RUN|CONT|NAME)\s+(\S+)`)
	pauseOfTest = regexp.MustCompile(`^=== PAUSE`)
)

// testResults reads the results of tests that have no tests inside them from a
// console, in the order in which they ended, each with what it said.
func testResults(console string) []testResult {
	said := map[string]string{}
	var results []testResult
	speaker := ""
	for line := range strings.Lines(console) {
		line = strings.TrimRight(line, "\r\n")
		if turn := turnOfTest.FindStringSubmatch(line); turn != nil {
			speaker = turn[1]
			continue
		}
		if pauseOfTest.MatchString(line) {
			continue
		}
		if end := endOfTest.FindStringSubmatch(line); end != nil {
			results = append(results, testResult{name: end[2], outcome: end[1]})
			speaker = end[2] // what a test logged follows its end where it ran beside others
			continue
		}
		said[speaker] += line + "\n"
	}
	return innermost(results, said)
}

// innermost drops tests that only hold others, and gives each what it said.
func innermost(results []testResult, said map[string]string) []testResult {
	holds := map[string]bool{}
	for _, r := range results {
		if at := strings.LastIndexByte(r.name, '/'); at >= 0 {
			holds[r.name[:at]] = true
		}
	}
	var kept []testResult
	for _, r := range results {
		if holds[r.name] && r.outcome != "FAIL" {
			continue
		}
		r.output = said[r.name]
		kept = append(kept, r)
	}
	return kept
}

func TestResultsInsideAreRead(t *testing.T) {
	const console = `forwarding: 1
=== RUN   TestAll
=== RUN   TestAll/one
    lab.go:1: seen after 40 ms
=== RUN   TestAll/two
=== PAUSE TestAll/two
=== CONT  TestAll/two
    lab.go:2: never seen
--- FAIL: TestAll (1.00s)
    --- PASS: TestAll/one (0.50s)
    --- FAIL: TestAll/two (0.50s)
--- SKIP: TestAlone (0.00s)
FAIL
`
	got := testResults(console)
	want := []struct{ name, outcome, output string }{
		{"TestAll", "FAIL", ""},
		{"TestAll/one", "PASS", "seen after 40 ms"},
		{"TestAll/two", "FAIL", "never seen"},
		{"TestAlone", "SKIP", "FAIL"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d results, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		if got[i].name != w.name || got[i].outcome != w.outcome || !strings.Contains(got[i].output, w.output) {
			t.Errorf("result %d is %+v, want %+v", i, got[i], w)
		}
	}
}
