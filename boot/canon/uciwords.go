package canon

import (
	"errors"
	"strings"
)

var errQuote = errors.New("quote or backslash is not closed in its line")

// uciWords cuts a line into words the way libuci does: single quotes keep all
// bytes, in double quotes and outside a backslash keeps the next one, adjacent
// parts form one word, # at the head of a word begins a comment.
//
// What libuci takes in a special way and we do not (; outside of quotes, # in
// the middle of a word, a statement that goes on in the next line) is an error.
func uciWords(l string) ([]string, error) {
	var words []string
	for {
		l = strings.TrimLeft(l, " \t")
		if l == "" || l[0] == '#' {
			return words, nil
		}
		word, rest, err := uciWord(l)
		if err != nil {
			return nil, err
		}
		words = append(words, word)
		l = rest
	}
}

func uciWord(l string) (word, rest string, err error) {
	var b strings.Builder
	for l != "" && l[0] != ' ' && l[0] != '\t' {
		var part string
		part, l, err = uciPart(l)
		if err != nil {
			return "", "", err
		}
		b.WriteString(part)
	}
	return b.String(), l, nil
}

// uciPart reads a quoted part, an escaped byte or one plain byte.
func uciPart(l string) (part, rest string, err error) {
	switch l[0] {
	case '\'':
		end := strings.IndexByte(l[1:], '\'')
		if end < 0 {
			return "", "", errQuote
		}
		return l[1 : 1+end], l[2+end:], nil
	case '"':
		return uciDouble(l[1:])
	case '\\':
		if len(l) < 2 {
			return "", "", errQuote
		}
		return l[1:2], l[2:], nil
	case ';', '#':
		return "", "", errors.New("; or # outside of quotes")
	}
	return l[:1], l[1:], nil
}

func uciDouble(l string) (part, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(l); i++ {
		switch {
		case l[i] == '"':
			return b.String(), l[i+1:], nil
		case l[i] == '\\' && i+1 < len(l):
			i++
		}
		b.WriteByte(l[i])
	}
	return "", "", errQuote
}
