"""Which tests are left to ``make slow``: the longest ones that have quicker ones of the same kind beside them.

``make test`` has to end within 25 minutes on two slow cores. What is decided here is decided by measured times, and in
one place; a test that takes minutes by its nature has its mark itself.
"""

import pytest

FIXTURES = {"compared"}  # a finished comparison of twelve runs; one of two runs stays
TESTS = (
    "test_papers.py::test_it_is_valid_for_its_method[gan-compression",  # the other papers' stay
    "test_devices.py::test_equals_pytorch[openvino-spade",
    "test_devices.py::test_equals_pytorch[onnxruntime-cpu-spade-static",
    "test_devices.py::test_equals_pytorch[torch-export-spade",
    "test_devices.py::test_grouped_modulation_is_exported_in_its_shared_form",
    "test_targets.py::test_one_file_for_every_height_and_width[onnxruntime-cpu-mobile_munit",
    "test_targets.py::test_one_file_for_every_height_and_width[torch-export-mobile_munit",
    "test_targets.py::test_one_file_for_every_height_and_width[onnxruntime-cpu-unet_128",
    "test_targets.py::test_generators_with_other_layers_have_float16[spade",
    "test_targets.py::test_float16_is_in_the_file[openvino",
    "test_targets.py::TestExecutorch::test_each_precision_is_written",
    "test_targets.py::TestExecutorch::test_model_is_left_as_it_was",
    "supernet/test_conformance.py::test_exports_to_onnx[mobile_spade",
    "supernet/test_conformance.py::test_exports_to_onnx[mobile_munit",
    "supernet/test_conformance.py::test_exports_to_onnx[munit",
    "test_exports.py::test_bench_runs_as_the_check_did[executorch-xnnpack",
    "test_methods.py::test_hypernetwork_end_to_end",
    "test_methods.py::test_agents_end_to_end",
    "test_methods.py::test_ranking_twice_is_the_same",
    "test_fronts.py::test_two_runs_in_one_database_do_not_see_each_other",
    "test_fronts.py::test_profile_and_a_budget_in_milliseconds",
    "test_fronts.py::test_runs_share_a_study_that_they_name",
    "test_processes.py::test_two_workers_of_which_one_is_killed",
    "test_cli.py::test_evaluate_a_generator",
    "test_cli.py::test_segmentation_network_of_ones_own",
    "test_data_stored.py::test_a_run_on_crops",
    "test_data_kinds.py::test_a_dataset_by_its_name_in_several_processes",
    "test_data_kinds.py::test_data_from_python_under_torchrun",
    "test_several_inputs.py::test_compress_to_report_and_onnx[munit",
    "test_several_inputs.py::test_munit_is_exported_in_half_precision",
    "test_shapes.py::test_whole_runs[alpha",
    "test_shapes.py::test_whole_runs[wide",
    "test_path_runs.py::test_a_search_begins_at_the_path_and_a_front_runs_along_it",
    "test_teacher_tasks.py::test_munit_in_two_processes_is_munit_in_one",
    "test_branches.py::test_an_exported_branch_is_gone",
    "test_evaluators_real.py::test_fid768_of_the_true_inception",
    "test_stylegan2.py::test_exports_to_onnx[grouped",
    "test_exports.py::test_another_device_is_exported_beside_one_that_is_not_whole",
    "test_exports.py::test_what_is_not_whole_any_more_is_exported_again[model.safetensors-_cut_short",
    "test_exports.py::test_what_is_not_whole_any_more_is_exported_again[onnxruntime-cpu/model.onnx-_delete",
    "test_mistakes.py::test_a_teacher_that_does_not_fit[unet_128",
    "test_devices.py::test_equals_pytorch[onnxruntime-cpu-spade-dynamic",
    "test_devices.py::test_equals_pytorch[torchscript-spade-dynamic",
    "test_devices.py::test_equals_pytorch[openvino-stylegan2-static",
    "test_targets.py::test_float16_is_in_the_file[torch-export",
    "test_targets.py::test_one_file_for_every_height_and_width[torch-export-unet_128",
    "test_targets.py::TestExecutorch::test_bench_runs_without_gantailor",
    "supernet/test_conformance.py::test_verifies[spade",  # the zoo's conformance proves it too
    "supernet/test_conformance.py::test_verifies[mobile_spade",
    "supernet/test_conformance.py::test_exports_to_onnx[spade",
    "test_shapes.py::test_whole_runs[grey",
    "test_shapes.py::test_whole_runs[super-resolution",
    "test_training_options.py::test_methods_decide_the_same_in_every_process[agents",
    "test_strategies.py::test_better_than_the_best_of_few[predictor",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Before ``-m`` is looked at."""
    for item in items:
        if FIXTURES & set(getattr(item, "fixturenames", ())) or any(name in item.nodeid for name in TESTS):
            item.add_marker(pytest.mark.slow)
