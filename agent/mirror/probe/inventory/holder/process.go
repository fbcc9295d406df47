package holder

import (
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"waxseal/agent/mirror"
)

const (
	maxComm = 32
	maxExe  = 256
)

// Process names a process. One that is gone has only its number.
func Process(root string, pid int) mirror.Process {
	folder := root + "/" + strconv.Itoa(pid)
	exe, _ := os.Readlink(folder + "/exe")
	return mirror.Process{
		PID:  pid,
		Comm: Printable(strings.TrimSuffix(head(folder+"/comm"), "\n"), maxComm),
		Exe:  Printable(exe, maxExe),
	}
}

// Printable makes a text of at most limit bytes that cannot steer a terminal or
// break a line: what is not printable becomes '?'. Anybody can choose the name
// of a process.
func Printable(text string, limit int) string {
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(clean) <= limit {
		return clean
	}
	for limit > 0 && !utf8.RuneStart(clean[limit]) {
		limit--
	}
	return clean[:limit]
}
