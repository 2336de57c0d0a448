//! Task sets: a random history against the rules of SAM-5 chapter 8.

use proptest::prelude::*;
use scsi::{Admit, Attribute, TaskSet};

#[derive(Clone, Debug)]
enum Act {
    Enter(Attribute),
    /// The n-th task that is in the set leaves, running or not.
    Leave(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Enter(Attribute::Simple)),
        1 => Just(Act::Enter(Attribute::Untagged)),
        2 => Just(Act::Enter(Attribute::Ordered)),
        1 => Just(Act::Enter(Attribute::HeadOfQueue)),
        6 => any::<usize>().prop_map(Act::Leave),
    ]
}

/// A task of the model; the list of them is in the order of arrival.
#[derive(Debug)]
struct Task {
    index: u32,
    attribute: Attribute,
    running: bool,
}

/// Whether the task at this place may be running.
fn may_run(tasks: &[Task], place: usize) -> bool {
    let heads = tasks.iter().any(|task| task.attribute == Attribute::HeadOfQueue);
    match tasks[place].attribute {
        Attribute::HeadOfQueue => true,
        Attribute::Ordered => place == 0 && !heads,
        _ => !heads && tasks[..place].iter().all(|task| task.attribute != Attribute::Ordered),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn tasks_start_when_the_rules_allow_it_and_not_before(acts in prop::collection::vec(act(), 1..80)) {
        let (mut set, mut tasks, mut next) = (TaskSet::new(), Vec::<Task>::new(), 0);
        for act in acts {
            match act {
                Act::Enter(attribute) => {
                    let running = set.enter(next, attribute) == Admit::Run;
                    tasks.push(Task { index: next, attribute, running });
                    let place = tasks.len() - 1;
                    prop_assert_eq!(running, may_run(&tasks, place));
                    next += 1;
                }
                Act::Leave(_) if tasks.is_empty() => (),
                Act::Leave(which) => {
                    let which = which % tasks.len();
                    let task = tasks.remove(which);
                    let mut ready = Vec::new();
                    set.leave(task.index, task.attribute, &mut ready);
                    let expected: Vec<usize> =
                        (0..tasks.len()).filter(|place| !tasks[*place].running && may_run(&tasks, *place)).collect();
                    let indices: Vec<u32> = expected.iter().map(|place| tasks[*place].index).collect();
                    prop_assert_eq!(ready, indices);
                    for place in expected {
                        tasks[place].running = true;
                    }
                }
            }
            prop_assert_eq!(set.is_empty(), tasks.is_empty());
        }
    }
}

#[test]
fn simple_tasks_run_side_by_side() {
    let mut set = TaskSet::new();
    for task in 0..100 {
        assert_eq!(set.enter(task, Attribute::Simple), Admit::Run);
    }
}

#[test]
fn ordered_waits_for_older_and_holds_back_younger() {
    let mut set = TaskSet::new();
    let mut ready = Vec::new();
    assert_eq!(set.enter(1, Attribute::Simple), Admit::Run);
    assert_eq!(set.enter(2, Attribute::Ordered), Admit::Wait);
    assert_eq!(set.enter(3, Attribute::Simple), Admit::Wait);
    assert_eq!(set.enter(4, Attribute::HeadOfQueue), Admit::Run);
    set.leave(1, Attribute::Simple, &mut ready);
    assert_eq!(ready, []);
    set.leave(4, Attribute::HeadOfQueue, &mut ready);
    assert_eq!(ready, [2]);
    set.leave(2, Attribute::Ordered, &mut ready);
    assert_eq!(ready, [2, 3]);
}

#[test]
fn an_aborted_waiting_task_lets_the_next_one_go() {
    let mut set = TaskSet::new();
    let mut ready = Vec::new();
    set.enter(1, Attribute::Simple);
    set.enter(2, Attribute::Ordered);
    set.enter(3, Attribute::Simple);
    set.leave(2, Attribute::Ordered, &mut ready);
    assert_eq!(ready, [3]);
}
