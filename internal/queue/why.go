package queue

// WhySubject is where the autoscaler that acts is asked what it sees of the function, what it wants and what holds it back.
func (f Function) WhySubject() string { return "freshet.why." + f.tokens() }

// AllWhy is every such question.
const AllWhy = "freshet.why.>"
