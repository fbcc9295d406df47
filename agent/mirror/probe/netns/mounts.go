package netns

import (
	"bytes"
	"strings"
)

// mountedNamespaces reads a mountinfo file (proc_pid_mountinfo(5)) for mounts
// of network namespaces: file system nsfs, whose root is "net:[inode]". Lines
// of other forms are other mounts.
func mountedNamespaces(text []byte) []Namespace {
	var found []Namespace
	for line := range bytes.Lines(text) {
		before, after, split := strings.Cut(string(line), " - ")
		fields := strings.Fields(before)
		if !split || len(fields) < 5 || !strings.HasPrefix(after, "nsfs ") {
			continue
		}
		if inode, ok := parseLink(unescape(fields[3])); ok {
			found = append(found, Namespace{Inode: inode, path: unescape(fields[4])})
		}
	}
	return found
}

// unescape undoes the kernel's \ooo (fs/seq_file.c, mangle_path).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }
