package appraise

// pair joins an element of one sequence with one of another; -1 stands for
// none.
type pair struct{ a, b int }

// maxTable bounds the work of one alignment, in comparisons.
const maxTable = 1 << 21

// align pairs two sequences so that as many elements as possible are equal
// and in order. What is not equal is paired by place between its neighbours,
// so that an exchanged element stands beside its replacement. Empty elements
// are equal to nothing.
func align[T ~[]byte | ~string](a, b []T) []pair {
	var pairs []pair
	head := 0
	for head < len(a) && head < len(b) && same(a[head], b[head]) {
		pairs = append(pairs, pair{head, head})
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && same(a[len(a)-1-tail], b[len(b)-1-tail]) {
		tail++
	}
	i, j := head, head
	endA, endB := len(a)-tail, len(b)-tail
	for _, m := range common(a[head:endA], b[head:endB]) {
		pairs = gap(pairs, i, head+m.a, j, head+m.b)
		pairs = append(pairs, pair{head + m.a, head + m.b})
		i, j = head+m.a+1, head+m.b+1
	}
	pairs = gap(pairs, i, endA, j, endB)
	for k := range tail {
		pairs = append(pairs, pair{endA + k, endB + k})
	}
	return pairs
}

func same[T ~[]byte | ~string](x, y T) bool { return len(x) > 0 && string(x) == string(y) }

// gap pairs elements i to endA with j to endB by place.
func gap(pairs []pair, i, endA, j, endB int) []pair {
	for i < endA || j < endB {
		p := pair{-1, -1}
		if i < endA {
			p.a = i
			i++
		}
		if j < endB {
			p.b = j
			j++
		}
		pairs = append(pairs, p)
	}
	return pairs
}

// common returns a longest common subsequence, or nothing if that would be too
// much work.
func common[T ~[]byte | ~string](a, b []T) []pair {
	if len(a) == 0 || len(b) == 0 || len(a) > maxTable/len(b) {
		return nil
	}
	width := len(b) + 1
	length := make([]int32, (len(a)+1)*width) // of the longest from (i, j) to the end
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if same(a[i], b[j]) {
				length[i*width+j] = length[(i+1)*width+j+1] + 1
			} else {
				length[i*width+j] = max(length[(i+1)*width+j], length[i*width+j+1])
			}
		}
	}
	var pairs []pair
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case same(a[i], b[j]):
			pairs = append(pairs, pair{i, j})
			i, j = i+1, j+1
		case length[(i+1)*width+j] >= length[i*width+j+1]:
			i++
		default:
			j++
		}
	}
	return pairs
}
