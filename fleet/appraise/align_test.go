package appraise

import (
	"fmt"
	"strings"
	"testing"
)

func TestAlign(t *testing.T) {
	for _, test := range []struct{ a, b, want string }{
		{"", "", ""},
		{"abc", "abc", "a=a b=b c=c"},
		{"abc", "axc", "a=a b=x c=c"},
		{"abc", "ac", "a=a b=- c=c"},
		{"ac", "abc", "a=a -=b c=c"},
		{"abcd", "xbcy", "a=x b=b c=c d=y"},
		{"abcd", "bcda", "a=- b=b c=c d=d -=a"},
		{"abx", "xab", "-=x a=a b=b x=-"},
		{"abc", "xyz", "a=x b=y c=z"},
		{"ab", "", "a=- b=-"},
		{"", "ab", "-=a -=b"},
		{"a.c", "a.c", "a=a .=. c=c"}, // empty elements are equal to nothing, and stay side by side
	} {
		var got []string
		a, b := letters(test.a), letters(test.b)
		for _, p := range align(a, b) {
			got = append(got, letter(test.a, p.a)+"="+letter(test.b, p.b))
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("align(%s, %s) = %s, want %s", test.a, test.b, s, test.want)
		}
	}
}

// letters are the elements of a sequence; a full stop is an empty one.
func letters(s string) []string {
	out := strings.Split(s, "")
	for i := range out {
		out[i] = strings.Trim(out[i], ".")
	}
	return out
}

func letter(s string, i int) string {
	if i < 0 {
		return "-"
	}
	return s[i : i+1]
}

// Each element stands in exactly one pair, in order, also where the sequences
// are too long to be compared each with each.
func TestAlignKeepsAllInOrder(t *testing.T) {
	var a, b []string
	for i := range 3000 {
		a = append(a, fmt.Sprint("a", i))
		b = append(b, fmt.Sprint("b", i/2))
	}
	for _, n := range []int{10, 1000, 3000} {
		nextA, nextB := 0, 0
		for _, p := range align(a[:n], b[:n/2]) {
			if p.a >= 0 && p.a != nextA || p.b >= 0 && p.b != nextB {
				t.Fatalf("pair %+v, expected %d and %d", p, nextA, nextB)
			}
			nextA, nextB = nextA+min(p.a+1, 1), nextB+min(p.b+1, 1)
		}
		if nextA != n || nextB != n/2 {
			t.Errorf("%d and %d elements of %d and %d", nextA, nextB, n, n/2)
		}
	}
}

func TestDiffIsBounded(t *testing.T) {
	want := strings.Repeat("line\n", 10_000)
	got := strings.Repeat("other\n", 10_000)
	lines, note := diffLines(want, got, func(s string) string { return s })
	if len(lines) != maxLines || note != "19800 more lines differ" {
		t.Errorf("%d lines, note %q", len(lines), note)
	}
	lines, _ = diffLines("", strings.Repeat("x", 10_000), func(s string) string { return s })
	if len(lines) != 1 || len(lines[0].Text) > maxLine+len("…") {
		t.Errorf("a line of %d bytes", len(lines[0].Text))
	}
}

func TestDiffSeesTheLastLineFeed(t *testing.T) {
	lines, _ := diffLines("a\nb\n", "a\nb", func(s string) string { return s })
	if len(lines) != 2 || lines[0].Number != 2 {
		t.Errorf("%+v", lines)
	}
}
