package evidence

// ForgetLogs empties the memory of logs that v has found good.
func ForgetLogs(v *Verifier) {
	v.stories = cache[storyKey, kept]{limit: keptLogBytes}
}
